"""The cast: three machines on loopback, the first of them the primary, over either engine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.edge import migrate
from cluster.engines import LiteFS
from tests.cluster.cast import AMS, ON_LITEFS, PRIMARY, Cluster, running
from tests.waiting import until


@pytest.fixture(scope="module", params=["standin", ON_LITEFS])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Shared by a module's tests: each leaves it as it found it."""
    with running(request.param, tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture(params=["standin", ON_LITEFS])
def own_cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    """For a test that ends something."""
    with running(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def stood_in_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Over the stand-in, for what the real one does only when it is set up otherwise."""
    with running("standin", tmp_path) as made:
        yield made


@pytest.fixture(params=[ON_LITEFS])
def real_cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    """Over the real LiteFS, for what only that can show."""
    with running(request.param, tmp_path) as made:
        yield made


@pytest.fixture(params=[ON_LITEFS])
def mounts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LiteFS]:
    """The mounts of a primary and a replica, with no app on them: the test's own process is the app."""
    engine = LiteFS(tmp_path, [PRIMARY, AMS])
    try:
        engine.start(PRIMARY)
        engine.start(AMS)
        migrate.migrate(engine.database(PRIMARY), "core")
        until(engine.database(AMS).exists)
        yield engine
    finally:
        engine.close()
