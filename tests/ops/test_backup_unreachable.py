"""A replica that is away, or takes nothing: who asked for speed is served on, who asked for safety is told."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from tests.cluster.backing import Backed
from tests.cluster.s3 import S3, serving_s3
from tests.instances.conftest import joined
from tests.waiting import until

EVENTS = 20
SERVED_SECONDS = 2.0


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[S3]:
    with serving_s3(tmp_path / "store") as serving:
        yield serving


@pytest.fixture
def durable(request: pytest.FixtureRequest) -> str:
    return str(getattr(request, "param", "off"))


@pytest.fixture
def backed(tmp_path: Path, s3: S3, durable: str) -> Iterator[Backed]:
    made = Backed(tmp_path, s3.url("prod"), durable, **s3.environ)
    made.start()
    yield made
    made.close()


@pytest.fixture
def client(backed: Backed) -> Iterator[httpx.Client]:
    with backed.server.client() as client:
        until(lambda: is_up(client))
        backed.make_room(client)
        yield client


def is_up(client: httpx.Client) -> bool:
    return "litehouse_backup_up 1.0" in client.get("/metrics").text


def restored_events(backed: Backed) -> list[str]:
    """What the replica holds, once the server has ended."""
    assert backed.server.stop() == 0
    backed.lose_disk()
    backed.restore()
    return backed.events()


def test_a_replica_out_of_reach_slows_nobody_is_told_and_gets_everything_later(
    backed: Backed, client: httpx.Client, s3: S3
) -> None:
    s3.stop()
    for _ in range(EVENTS):
        answer = backed.post_event(client)
        assert answer.status_code == 200
        assert answer.elapsed.total_seconds() < SERVED_SECONDS
    assert backed.put_key(client, "k", 1).status_code == 201
    until(lambda: not is_up(client), seconds=20)
    health = client.get("/api/health").json()
    assert health["backupAgeMs"] > 0
    assert not health["backup"]["core"]["shipped"]
    assert 'litehouse_backup_shipped{of="core"} 0.0' in client.get("/metrics").text
    told = backed.server.command("backup", "status")
    assert told.returncode == 1
    assert "does not answer" in told.stderr
    s3.start()
    until(lambda: is_up(client), seconds=30)
    until(lambda: client.get("/api/health").json()["backup"]["core"]["shipped"])
    assert restored_events(backed) == backed.acknowledged


def test_a_replica_that_takes_nothing_more_stops_nobody(tmp_path: Path) -> None:
    """As a full disk behind it would: there is no room for another object."""
    folder = tmp_path / "replica"
    backed = Backed(tmp_path, f"file://{folder}")
    backed.start()
    try:
        with backed.server.client() as client:
            until(lambda: is_up(client))
            folder.rename(tmp_path / "full")
            folder.write_text("no folder")
            for _ in range(EVENTS):
                assert backed.post_event(client).status_code == 200
            until(lambda: not is_up(client))
            folder.unlink()
            (tmp_path / "full").rename(folder)
            until(lambda: is_up(client), seconds=30)
        assert restored_events(backed) == backed.acknowledged
    finally:
        backed.close()


@pytest.mark.parametrize("durable", ["core"], indirect=True)
def test_what_is_not_safe_in_time_is_503_and_a_repeat_by_id_finds_it_stored(
    backed: Backed, client: httpx.Client, s3: S3
) -> None:
    assert backed.post_event(client).status_code == 200
    s3.stop()
    refused = backed.post_event(client, "unsafe")
    assert refused.status_code == 503
    assert refused.json()["code"] == "unavailable"
    assert int(refused.headers["retry-after"]) >= 1
    assert client.get("/api/usage/quota").status_code == 200
    s3.start()
    answers: list[httpx.Response] = []

    def is_safe() -> bool:
        answers.append(backed.post_event(client, "unsafe"))
        return answers[-1].status_code == 200

    until(is_safe)
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert answers[-1].json()["duplicates"] == 1
    assert restored_events(backed) == backed.acknowledged


@pytest.mark.parametrize("durable", ["all"], indirect=True)
def test_nobody_hears_of_a_change_that_is_not_safe_and_everybody_comes_back_to_it(
    backed: Backed, client: httpx.Client, s3: S3
) -> None:
    with joined(backed.server, backed.room) as peer:
        assert backed.put_key(client, "k", 1).status_code == 201
        assert peer.hear()["seq"] == 1
        s3.stop()
        refused = backed.put_key(client, "k", 2)
        assert refused.status_code == 503
        assert "retry-after" in refused.headers
        heard = []
        with suppress(ConnectionClosed):
            while True:
                heard.append(peer.hear())
        assert (heard, peer.socket.close_code) == ([], 1013)
    s3.start()
    until(lambda: client.get(f"/api/instances/{backed.room}/keys").status_code == 200)
    with joined(backed.server, backed.room) as peer:
        peer.say("set", key="k", value="3")
        heard = peer.hear()
        assert (heard["seq"], heard["value"]) == (3, "3")
