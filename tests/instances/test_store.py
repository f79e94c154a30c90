"""The store: what a file holds when it is opened again, and a copy of it."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from app.edge import sqlite
from app.instances import entry
from app.instances.entry import Entry
from app.instances.queries import Actor, Record
from app.instances.store import Commit, Retention, Store

NOW = 1_700_000_000_000
GIVEN = {
    "plain": ('"tea"', {}),
    "plain too": ("[1, 2]", {}),
    "grün": ('"Tee für zwei 🍵"', {"contentTags": ["grün", "x"], "zIndex": 2.5}),
    "kept": ("null", {"hardcoded": True}),
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store whose file holds GIVEN, closed."""
    made = Store(tmp_path / "room.db", Retention())
    made.open(NOW)
    records = [_record(seq, key) for seq, key in enumerate(GIVEN, 1)]
    made.write(Commit(records, [], [], len(records), NOW))
    made.close()
    yield made
    made.close()


def test_a_file_opened_again_holds_the_same_entries_and_counts_them_alike(store: Store) -> None:
    loaded = store.open(NOW)
    assert loaded.entries == {key: _record(seq, key).entry for seq, key in enumerate(GIVEN, 1)}
    assert loaded.bytes == sum(map(entry.size, loaded.entries.values()))
    assert loaded.seq == len(GIVEN)


def test_a_copy_is_written_ahead_like_the_file_it_is_of(store: Store, tmp_path: Path) -> None:
    store.open(NOW)
    store.copy(tmp_path / "copy.db", NOW)
    copy = Store(tmp_path / "copy.db", Retention())
    assert copy.open(NOW).entries == store.open(NOW).entries
    copy.close()
    raw = sqlite.connect(tmp_path / "copy.db", read_only=True)
    assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    raw.close()


def test_a_file_that_was_only_begun_is_made_whole(tmp_path: Path) -> None:
    (tmp_path / "begun.db").touch()
    begun = Store(tmp_path / "begun.db", Retention())
    assert begun.open(NOW).entries == {}
    begun.close()


def _record(seq: int, key: str) -> Record:
    value, attributes = GIVEN[key]
    made = entry.change(None, key, msgspec.Raw(value.encode()), attributes, admin=True, now=NOW)
    assert isinstance(made, Entry)
    return Record(seq, NOW, "set", key, msgspec.structs.replace(made, seq=seq), None, Actor("user", "ada"), "ada")
