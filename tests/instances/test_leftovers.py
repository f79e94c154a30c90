"""Whether one instance's file has all that another one has."""

from pathlib import Path

import pytest

from app.edge import migrate, sqlite
from app.instances.restoration import Extent, covers, read_extent
from app.instances.store import KIND

# Made by three owners; the last has changed nothing yet.
EPOCHS = [("1-a", 1), ("2-b", 11), ("3-c", 21)]


@pytest.mark.parametrize(
    ("extent", "covered"),
    [
        (Extent("1-a", 10), True),
        (Extent("1-a", 11), False),
        (Extent("2-b", 11), True),
        (Extent("2-b", 20), True),
        (Extent("2-b", 21), False),
        (Extent("2-x", 11), False),
        (Extent("", 0), True),
        # Of the epoch that goes on nobody else can have anything.
        (Extent("3-c", 21), False),
    ],
)
def test_a_change_is_covered_when_the_next_epoch_begins_behind_it(extent: Extent, covered: bool) -> None:
    assert covers(EPOCHS, extent) is covered


def test_an_epoch_in_which_nothing_was_changed_adds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "room.db"
    migrate.migrate(path, KIND)
    assert read_extent(path) == ("", 0)
    raw = sqlite.connect(path)
    raw.executemany("INSERT INTO epochs (epoch, first_seq, started_at_ms) VALUES (?, ?, 0)", EPOCHS)
    raw.execute("UPDATE instance SET seq = 20")
    raw.close()
    assert read_extent(path) == ("2-b", 20)


def test_of_two_epochs_that_begin_at_one_change_the_later_made_it(tmp_path: Path) -> None:
    """An owner that opened and changed nothing leaves its epoch at the place where the next one begins."""
    path = tmp_path / "room.db"
    migrate.migrate(path, KIND)
    raw = sqlite.connect(path)
    raw.executemany(
        "INSERT INTO epochs (epoch, first_seq, started_at_ms) VALUES (?, ?, 0)", [("1-a", 1), ("2-b", 11), ("3-c", 11)]
    )
    raw.execute("UPDATE instance SET seq = 11")
    raw.close()
    assert read_extent(path) == ("3-c", 11)
    assert not covers([("1-a", 1), ("2-b", 11), ("4-d", 11)], read_extent(path))
