"""Retention: what is forgotten is gone for history, revert, undo and whoever resumes."""

from collections.abc import Iterator

import pytest

from tests.instances.conftest import dial
from tests.projects.conftest import Cast, Person, refused

KEPT = 5
CHANGES = 10
FORGOTTEN = (410, f"Changes before {CHANGES + 2 - KEPT} are kept no longer")


@pytest.fixture(scope="module")
def cast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cast]:
    """A server that keeps KEPT changes."""
    made = Cast(tmp_path_factory.mktemp("retention") / "data")
    made.server.environ["HISTORY_CHANGES"] = str(KEPT)
    made.server.start()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def alice(cast: Cast) -> Person:
    return cast.person()


@pytest.fixture(scope="module")
def room(cast: Cast, alice: Person) -> str:
    """An instance whose history was cut by the first change after a start."""
    made: str = cast.instance(alice, cast.project(alice))["id"]
    for number in range(CHANGES):
        cast.call(alice, "PUT", f"/api/instances/{made}/keys/k{number % 3}", {"value": number})
    cast.server.stop()
    cast.server.start()
    cast.call(alice, "PUT", f"/api/instances/{made}/keys/last", {"value": 0})
    return made


def test_history_tells_what_is_kept(cast: Cast, alice: Person, place: str) -> None:
    kept = list(range(CHANGES + 1, CHANGES + 1 - KEPT, -1))
    for query in ("", f"?since={CHANGES + 1 - KEPT}"):
        assert [change["seq"] for change in cast.get(alice, f"{place}/history{query}")["history"]] == kept
    for since in (0, CHANGES - KEPT):
        assert refused(cast.call(alice, "GET", f"{place}/history?since={since}")) == FORGOTTEN


def test_nothing_goes_back_to_what_is_forgotten(cast: Cast, alice: Person, place: str) -> None:
    before = cast.get(alice, f"{place}/keys")
    for path, body in (
        ("revert", {"seq": CHANGES - KEPT}),
        ("undo", {"actor": alice.clerk_id, "sinceSeq": CHANGES - KEPT}),
    ):
        assert refused(cast.call(alice, "POST", f"{place}/{path}", body)) == FORGOTTEN
    assert cast.get(alice, f"{place}/keys") == before


def test_who_was_away_for_too_long_gets_everything(cast: Cast, alice: Person, room: str) -> None:
    with dial(cast.server, room, alice.headers, since=CHANGES - KEPT) as later:
        assert later.greeting()[1]["reason"] == "retention"
    with dial(cast.server, room, alice.headers, since=CHANGES + 1 - KEPT) as later:
        later.hear()
        assert [frame["seq"] for frame in later.settle()] == list(range(CHANGES + 2 - KEPT, CHANGES + 2))


def test_the_oldest_change_that_may_be_gone_back_to(cast: Cast, alice: Person, place: str) -> None:
    reverted = cast.make(alice, f"{place}/revert", {"seq": CHANGES + 1 - KEPT})
    assert reverted == {"success": True, "changed": 4, "seq": CHANGES + 5}
    held = cast.get(alice, f"{place}/keys")["keys"]
    assert {key: one["value"] for key, one in held.items()} == {"k0": 3, "k1": 4, "k2": 5}
