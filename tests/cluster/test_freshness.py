"""What a machine remembers of those whose writes passed through it."""

import pytest

from app.edge import freshness
from app.edge.freshness import COOKIE, REMEMBERED_SECONDS, Freshness, Wish, parse_position
from app.edge.transaction import Position

EARLY, LATE = Position("e1", 3), Position("e1", 9)


def scope(**headers: str) -> dict[str, object]:
    return {"headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]}


MINE = scope(authorization="Bearer mine")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1_000.0]
    monkeypatch.setattr("app.edge.freshness.time.monotonic", lambda: now[0])
    return now


def test_a_caller_is_remembered_for_five_seconds(clock: list[float]) -> None:
    known = Freshness()
    known.note(MINE, EARLY)
    clock[0] += REMEMBERED_SECONDS - 0.01
    assert known.wish_of(MINE) == Wish(EARLY)
    clock[0] += 0.02
    assert known.wish_of(MINE) is None


def test_the_last_write_counts(clock: list[float]) -> None:
    known = Freshness()
    known.note(MINE, EARLY)
    known.note(MINE, LATE)
    assert known.wish_of(MINE) == Wish(LATE)
    known.note(MINE, None)
    assert known.wish_of(MINE) == Wish(None)


@pytest.mark.parametrize("name", ["authorization", "x_api_key", "x_admin_token", "x_admin_key", "x_chat_key", "cookie"])
def test_a_caller_is_known_by_its_credential_alone(name: str) -> None:
    known = Freshness()
    known.note(scope(**{name: "secret-1"}), EARLY)
    assert known.wish_of(scope(**{name: "secret-1", "user_agent": "x"})) == Wish(EARLY)
    assert known.wish_of(scope(**{name: "secret-2"})) is None
    assert known.wish_of(scope()) is None
    assert all(b"secret" not in caller for caller in known._callers)


def test_who_has_no_credential_is_not_remembered() -> None:
    known = Freshness()
    known.note(scope(), EARLY)
    assert known.wish_of(scope()) is None


def test_the_longest_ago_is_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshness, "CALLERS", 2)
    known = Freshness()
    for name in ("a", "b", "a", "c"):
        known.note(scope(authorization=name), EARLY)
    found = [known.wish_of(scope(authorization=name)) is not None for name in ("a", "b", "c")]
    assert found == [True, False, True]


def test_what_a_caller_says_goes_before_what_is_remembered() -> None:
    known = Freshness()
    known.note(MINE, None)
    assert known.wish_of(scope(authorization="Bearer mine", x_txid="e1-3")) == Wish(EARLY)
    assert known.wish_of(scope(authorization="Bearer mine", x_txid="garbage")) == Wish(None)


def test_the_later_of_a_cookie_and_what_is_remembered_counts() -> None:
    both = scope(authorization="Bearer mine", cookie=f"a=b; {COOKIE}=e1-5;c=d")
    known = Freshness()
    assert known.wish_of(both) == Wish(Position("e1", 5))
    for noted, wanted in (
        (EARLY, Position("e1", 5)),
        (LATE, LATE),
        (Position("e2", 1), Position("e2", 1)),
        (None, None),
    ):
        known.note(MINE, noted)
        assert known.wish_of(both) == Wish(wanted)


@pytest.mark.parametrize(
    "text", ["", "-", "e1-", "-1", "e1-1 ", "e1-x", "e 1-1", "e1-" + "9" * 16, "é-1", "e" * 65 + "-1"]
)
def test_what_is_no_position_is_ignored(text: str) -> None:
    assert parse_position(text.encode()) is None
