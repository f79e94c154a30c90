"""Idempotency-Key at revert, undo and import: one effect and one answer."""

import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.edge import idempotency, sqlite
from tests.conftest import locked
from tests.instances.conftest import in_background
from tests.projects.conftest import Cast, Json, Person, refused

KILLS = 5
AT_ONCE = 8
WAIT_SECONDS = 10.0

POSTS: list[tuple[str, Json]] = [
    ("revert", {"seq": 1}),
    ("undo", {"actor": "bob"}),
    ("import", {"a": {"value": 3}, "c": {"value": 4}}),
    ("import?mode=replace", {"c": {"value": 4}}),
]
EVERY_POST = pytest.mark.parametrize(("path", "body"), POSTS, ids=[path for path, _ in POSTS])


@pytest.fixture
def bob(cast: Cast, alice: Person, bob: Person, place: str) -> Person:
    """Somebody who has changed `a` and made `b` since alice made `a` and before she changed `b`."""
    cast.share(alice, place.removeprefix("/api/"), "write", bob)
    for who, key, value in ((alice, "a", 1), (bob, "a", 2), (bob, "b", 1), (alice, "b", 2)):
        cast.call(who, "PUT", f"{place}/keys/{key}", {"value": value})
    return bob


def post(cast: Cast, who: Person, path: str, body: Json, key: str = "once") -> httpx.Response:
    return cast.call(who, "POST", path, body, Idempotency_Key=key)


def named(body: Json, bob: Person) -> Json:
    return {"actor": bob.clerk_id} if "actor" in body else body


def seq(cast: Cast, who: Person, place: str) -> int:
    last: int = cast.get(who, f"{place}/keys")["seq"]
    return last


@EVERY_POST
def test_a_repeat_gets_the_first_answer_and_changes_nothing(
    cast: Cast, alice: Person, bob: Person, place: str, path: str, body: Json
) -> None:
    first = post(cast, alice, f"{place}/{path}", named(body, bob))
    assert first.status_code == 200
    assert first.json()["changed"] > 0
    cast.call(bob, "PUT", f"{place}/keys/a", {"value": 99})
    before = seq(cast, alice, place)
    again = post(cast, alice, f"{place}/{path}", named(body, bob))
    assert (again.status_code, again.content) == (200, first.content)
    assert again.headers["content-type"] == first.headers["content-type"]
    assert seq(cast, alice, place) == before


@EVERY_POST
def test_the_same_key_with_another_request_is_422(
    cast: Cast, alice: Person, bob: Person, place: str, path: str, body: Json
) -> None:
    post(cast, alice, f"{place}/{path}", named(body, bob))
    before = seq(cast, alice, place)
    other: dict[str, Any] = {"seq": 0} if "seq" in body else {"actor": alice.clerk_id} if "actor" in body else {}
    answer = post(cast, alice, f"{place}/{path}", other)
    assert refused(answer) == (422, "This Idempotency-Key was used with another body")
    assert seq(cast, alice, place) == before


def test_another_mode_of_an_import_is_another_request(cast: Cast, alice: Person, place: str) -> None:
    assert post(cast, alice, f"{place}/import", {}).status_code == 200
    assert post(cast, alice, f"{place}/import?mode=replace", {}).status_code == 422


def test_a_key_belongs_to_its_principal_and_path(cast: Cast, alice: Person, bob: Person, place: str) -> None:
    body = {"c": {"value": 1}}
    other = f"/api/instances/{cast.instance(alice, cast.project(alice))['id']}"
    assert post(cast, alice, f"{place}/import", body).json()["changed"] == 1
    cast.call(alice, "DELETE", f"{place}/keys/c")
    for who, path in ((bob, place), (alice, other)):
        assert post(cast, who, f"{path}/import", body).json()["changed"] == 1
    assert post(cast, alice, f"{place}/revert", {"seq": 1}).json()["changed"] == 3
    assert post(cast, alice, f"{place}/import", body, "twice").json()["changed"] == 1


def test_a_refusal_is_not_kept(cast: Cast, alice: Person, place: str) -> None:
    assert post(cast, alice, f"{place}/revert", {"seq": 1}).status_code == 404
    cast.call(alice, "PUT", f"{place}/keys/a", {"value": 1})
    assert post(cast, alice, f"{place}/revert", {"seq": 1}).json() == {"changed": 0, "seq": 1, "success": True}


def test_an_answer_without_a_change_is_kept_too(cast: Cast, alice: Person, place: str) -> None:
    cast.call(alice, "PUT", f"{place}/keys/a", {"value": 1})
    first = post(cast, alice, f"{place}/revert", {"seq": 1})
    cast.call(alice, "PUT", f"{place}/keys/a", {"value": 2})
    assert post(cast, alice, f"{place}/revert", {"seq": 1}).content == first.content
    assert cast.get(alice, f"{place}/keys/a")["value"] == 2


def file_of(cast: Cast, place: str) -> Path:
    return next(cast.server.data_dir.glob(f"instances/*/{place.rpartition('/')[2]}.db"))


def test_a_repeat_while_the_first_still_runs_is_409(cast: Cast, alice: Person, place: str) -> None:
    cast.call(alice, "PUT", f"{place}/keys/a", {"value": 1})
    with ThreadPoolExecutor(2) as threads:
        with locked(file_of(cast, place)):
            both = {threads.submit(post, cast, alice, f"{place}/import", {"b": {"value": 1}}) for _ in range(2)}
            done, waiting = wait(both, WAIT_SECONDS, FIRST_COMPLETED)
            assert [refused(one.result()) for one in done] == [
                (409, "A request with this Idempotency-Key is still running")
            ]
        (first,) = waiting
        answer = first.result(WAIT_SECONDS)
    assert answer.status_code == 200
    assert post(cast, alice, f"{place}/import", {"b": {"value": 1}}).content == answer.content


def test_many_at_once_have_one_effect(cast: Cast, alice: Person, place: str) -> None:
    body = {f"k{number}": {"value": number} for number in range(50)}
    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = list(threads.map(lambda _: post(cast, alice, f"{place}/import", body), range(AT_ONCE)))
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert {answer.content for answer in answers if answer.status_code == 200} == {
        b'{"changed":50,"seq":50,"success":true}'
    }
    assert seq(cast, alice, place) == 50


def test_an_answer_that_is_too_large_to_keep_is_409_and_its_effect_is_had_once(
    cast: Cast, alice: Person, bob: Person, place: str
) -> None:
    keys = [f"{number}{'k' * 1_000}" for number in range(idempotency.ANSWER_BYTES // 1_000)]
    cast.make(bob, f"{place}/import", {key: {"value": 1} for key in keys})
    cast.make(alice, f"{place}/import", {key: {"value": 2} for key in keys})
    first = post(cast, alice, f"{place}/undo", {"actor": bob.clerk_id})
    assert len(first.json()["skipped"]) == len(keys) + 1
    before = seq(cast, alice, place)
    assert post(cast, alice, f"{place}/undo", {"actor": bob.clerk_id}).status_code == 409
    assert seq(cast, alice, place) == before


def test_an_answer_that_a_kill_kept_back_is_given_after_it(tmp_path: Path) -> None:
    cast = Cast(tmp_path / "data")
    cast.server.start()
    try:
        alice = cast.person()
        place = f"/api/instances/{cast.project(alice)['defaultInstanceId']}"
        cast.call(alice, "PUT", f"{place}/keys/first", {"value": 0})
        for number in range(KILLS):
            body = {f"k{number}": {"value": number}, "first": {"value": number + 1}}
            sending = in_background(_send_until_killed, cast, alice, f"{place}/import", body, f"key-{number}")
            _kill_once_written(cast, file_of(cast, place), f"k{number}")
            sending.join()
            cast.server.start()
            answer = post(cast, alice, f"{place}/import", body, f"key-{number}")
            assert answer.json() == {"changed": 2, "seq": 2 * number + 3, "success": True}
            assert seq(cast, alice, place) == 2 * number + 3
    finally:
        cast.close()


def _send_until_killed(cast: Cast, who: Person, path: str, body: Json, key: str) -> None:
    try:
        post(cast, who, path, body, key)
    except httpx.TransportError:
        return


def _kill_once_written(cast: Cast, path: Path, key: str) -> None:
    """As soon as another process can see the key, whether the answer has left or not."""
    raw = sqlite.connect(path, read_only=True)
    deadline = time.monotonic() + WAIT_SECONDS
    try:
        while not raw.execute("SELECT 1 FROM entries WHERE key = ?", (key,)).fetchall():
            assert time.monotonic() < deadline
        cast.server.kill()
    finally:
        raw.close()
