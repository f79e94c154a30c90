"""GET /metrics: Prometheus text for those who may see it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.ops.metrics import is_private
from tests.conftest import ADMIN_TOKEN, Server, serving

TOKEN = "collector"
# As if it had come through a proxy: then loopback is the proxy's address and opens nothing.
FROM_OUTSIDE = {"Fly-Client-IP": "203.0.113.7"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data: Path = tmp_path_factory.mktemp("metrics")
    with serving(data, METRICS_TOKEN=TOKEN) as running:
        yield running


@pytest.mark.parametrize(
    "headers",
    [
        {},
        FROM_OUTSIDE | {"X-Admin-Token": ADMIN_TOKEN},
        FROM_OUTSIDE | {"X-Admin-Key": ADMIN_TOKEN},
        FROM_OUTSIDE | {"Authorization": f"Bearer {TOKEN}"},
    ],
    ids=["private peer", "admin token", "admin key", "metrics token"],
)
def test_those_who_may_see_it_do(server: Server, headers: dict[str, str]) -> None:
    with server.client(**headers) as client:
        answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert list(text_string_to_metric_families(answer.text))


@pytest.mark.parametrize(
    "headers",
    [
        FROM_OUTSIDE,
        {"X-Forwarded-For": "10.0.0.1"},
        FROM_OUTSIDE | {"Authorization": "Bearer wrong"},
        FROM_OUTSIDE | {"Authorization": "Bearer"},
        FROM_OUTSIDE | {"Authorization": f"Basic {TOKEN}"},
        FROM_OUTSIDE | {"X-Admin-Token": TOKEN},
    ],
    ids=["nothing", "a proxy", "wrong token", "empty token", "other scheme", "token in the admin header"],
)
def test_everybody_else_is_refused(server: Server, headers: dict[str, str]) -> None:
    with server.client(**headers) as client:
        answer = client.get("/metrics")
    assert answer.status_code == 401
    assert answer.json()["error"] == "Unauthorized"


def test_an_unset_token_matches_nothing(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as running, running.client(**FROM_OUTSIDE) as client:
        assert client.get("/metrics", headers={"Authorization": "Bearer"}).status_code == 401
        assert client.get("/metrics", headers={"Authorization": "Bearer None"}).status_code == 401


def test_it_counts_what_has_happened(server: Server) -> None:
    with server.client() as client:
        before = samples(client.get("/metrics").text)
        client.get("/livez")
        client.get("/no/such/path/1")
        client.get("/no/such/path/2")
        after = samples(client.get("/metrics").text)
    live = ("litehouse_request_seconds_count", "/livez", "GET", "200")
    unknown = ("litehouse_request_seconds_count", "none", "any", "404")
    assert after[live] - before.get(live, 0) == 1
    assert after[unknown] - before.get(unknown, 0) == 2
    for name in (
        "litehouse_writer_queue_jobs",
        "litehouse_writer_group_jobs_count",
        "litehouse_quota_refusals_total",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
    ):
        assert (name,) in after
    assert after[("process_resident_memory_bytes",)] > 1 << 20


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Every sample by its name and its route, method and status."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if "le" not in sample.labels:
                labels = [sample.labels[name] for name in ("route", "method", "status") if name in sample.labels]
                found[(sample.name, *labels)] = sample.value
    return found


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("127.0.0.1", True),
        ("10.1.2.3", True),
        ("172.31.255.255", True),
        ("172.32.0.1", False),
        ("192.168.1.1", True),
        ("fdaa:0:1::3", True),
        ("::1", True),
        ("fe80::1%eth0", False),
        ("::ffff:10.0.0.1", True),
        ("::ffff:8.8.8.8", False),
        ("2002:a00:1::", False),
        ("8.8.8.8", False),
        ("testclient", False),
    ],
)
def test_an_address_is_private_or_not(address: str, private: bool) -> None:
    assert is_private(address) is private
