"""Three machines on which nobody is let in without a credential, over either engine, with and without Fly's proxy."""

from collections.abc import Iterator

import pytest

from cluster.engines import StandIn
from tests.cluster.cast import ENGINE_NAMES, Cluster, running


@pytest.fixture(scope="session", params=ENGINE_NAMES)
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="session", params=["forward"])
def replay(request: pytest.FixtureRequest) -> str:
    """How machines move requests; a test names others."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def served(engine: str, replay: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(engine, tmp_path_factory.mktemp("cluster"), replay, DEV_USER="0") as made:
        yield made


@pytest.fixture
def cluster(served: Cluster) -> Iterator[Cluster]:
    """Shared by all tests: each brings people of its own, and what it does to lines and copies is undone."""
    yield served
    served.calm()


@pytest.fixture
def stood_in(cluster: Cluster) -> Cluster:
    """Over the stand-in, whose machines say whatever lag a test wants."""
    if not isinstance(cluster.engine, StandIn):
        pytest.skip("LiteFS says what is true")
    return cluster
