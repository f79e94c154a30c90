"""The cast: three machines on loopback, the first of them the primary, over either engine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cast import Cluster, running
from tests.cluster.engines import why_not_litefs

missing = why_not_litefs()
LITEFS = pytest.param(
    "litefs", marks=[pytest.mark.litefs, pytest.mark.skipif(missing is not None, reason=str(missing))]
)


@pytest.fixture(scope="module", params=["standin", LITEFS])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Shared by a module's tests: each leaves it as it found it."""
    with running(request.param, tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture(params=["standin", LITEFS])
def own_cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    """For a test that ends something."""
    with running(request.param, tmp_path) as made:
        yield made


@pytest.fixture(params=[LITEFS])
def real_cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    """Over the real LiteFS, for what only that can show."""
    with running(request.param, tmp_path) as made:
        yield made
