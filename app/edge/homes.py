"""Homes: who owns what is not the primary's. A row says which machine, and under which epoch.

A new owner gets a new epoch, always; the primary's writer is the one place where that happens. What a machine reads
here on its replica is true of itself as long as it holds its lease (docs/edge.md says why).
"""

from collections.abc import Sequence
from typing import NamedTuple

from app.edge.database import Connection, Transaction
from app.errors import Conflict, NotFound


class Machine(NamedTuple):
    """A machine that may own something."""

    machine: str
    region: str


class Home(NamedTuple):
    """`number` rises with each owner; `epoch` is what clients see of it; `source` has the file that was handed over.

    `opened` is the newest number under which it may have been opened: what was acknowledged under a lower one is in
    each file of that number. None where nobody has opened it.
    """

    name: str
    machine: str
    region: str
    number: int
    epoch: str
    source: str | None
    opened: int | None = None


def find_home(connection: Connection, name: str) -> Home | None:
    row = connection.fetch_one(
        "SELECT name, machine, region, number, epoch, source, opened FROM homes WHERE name = ?", name
    )
    return Home(*row) if row else None


def list_sessions(connection: Connection) -> list[tuple[Machine, str | None]]:
    """Every machine that has ever begun one, and the one that lasts."""
    rows = connection.fetch("SELECT machine, region, session FROM machines ORDER BY machine")
    return [(Machine(row[0], row[1]), row[2]) for row in rows]


def begin_session(tx: Transaction, machine: Machine, session: str, now: int) -> None:
    """A machine has started, or lost its lease: the session under which it holds the next one."""
    tx.execute(
        """INSERT INTO machines (machine, region, session, began_at_ms) VALUES (?, ?, ?, ?)
           ON CONFLICT (machine) DO UPDATE SET
               region = excluded.region, session = excluded.session, began_at_ms = excluded.began_at_ms""",
        *machine,
        session,
        now,
    )


def find_session(connection: Connection, machine: str) -> str | None:
    """The one that lasts; None where none does."""
    row = connection.fetch_one("SELECT session FROM machines WHERE machine = ?", machine)
    return row[0] if row else None


def end_session(tx: Transaction, machine: str) -> None:
    """From this commit on nothing that the machine believes to own is certain."""
    tx.execute("UPDATE machines SET session = NULL WHERE machine = ?", machine)


def claim(tx: Transaction, name: str, to: Machine, gone: str | None, mark: str, now: int) -> Home:
    """The home of `name`; `to` becomes it where there is none, or where it is the machine that is `gone`."""
    home = find_home(tx, name)
    if home is not None and home.machine != gone:
        return home
    if home is not None:
        end_session(tx, home.machine)
    if home is None:
        return _give(tx, name, to, 1, None, None, mark, now)
    return _give(tx, name, to, home.number + 1, None, home.opened, mark, now)


def hand_over(tx: Transaction, home: Home, to: Machine, session: str, source: str | None, mark: str, now: int) -> Home:
    """Give what its owner lets go of to another machine, which has the file from `source`, or else from the replica.

    Conflict when it is that owner's no longer, or the session is over in which it let go: it may have it open again.
    """
    stored = find_home(tx, home.name)
    if stored is None:
        raise NotFound("Nobody owns it")
    held = find_session(tx, home.machine)
    if (stored.machine, stored.number) != (home.machine, home.number) or held != session:
        raise Conflict("It has another home by now")
    return _give(tx, home.name, to, home.number + 1, source, stored.opened, mark, now)


def raise_number(tx: Transaction, home: Home, least: int, mark: str, now: int) -> Home:
    """A higher number for the same owner: a file or the replica knows later epochs than a core that was restored does,
    and `least` is above them."""
    stored = _require_same(tx, home)
    machine = Machine(home.machine, home.region)
    opened = max(stored.opened or 0, least - 1) if least else stored.opened
    return _give(tx, home.name, machine, max(least, home.number + 1), home.source, opened, mark, now)


def mark_opened(tx: Transaction, home: Home) -> Home:
    """Its owner is about to open it, with everything in place. Conflict when it is another's by now."""
    stored = _require_same(tx, home)
    tx.execute("UPDATE homes SET opened = number WHERE name = ?", home.name)
    return stored._replace(opened=stored.number)


def _require_same(tx: Transaction, home: Home) -> Home:
    stored = find_home(tx, home.name)
    if stored is None or (stored.machine, stored.number) != (home.machine, home.number):
        raise Conflict("It has another home by now")
    return stored


def list_unowned(connection: Connection, names: Sequence[str]) -> list[str]:
    """The instances among the names that are nobody's."""
    marks = ", ".join("?" * len(names))
    rows = connection.fetch(f"SELECT id FROM instances WHERE id IN ({marks}) EXCEPT SELECT name FROM homes", *names)
    return [row[0] for row in rows]


def list_opened_elsewhere(connection: Connection, names: Sequence[str], machine: str) -> list[str]:
    """Those of the names that another machine owns, and has opened."""
    marks = ", ".join("?" * len(names))
    rows = connection.fetch(
        f"SELECT name FROM homes WHERE name IN ({marks}) AND machine <> ? AND opened = number", *names, machine
    )
    return [row[0] for row in rows]


def adopt(tx: Transaction, held: Sequence[tuple[str, int]], machine: Machine, mark: str, now: int) -> int:
    """Make a machine the home of what it has the files of and nobody owns yet; how many there were.

    With each name comes the number that the file knows: 0 from the time before there were homes.
    """
    return sum(
        tx.execute(
            """INSERT INTO homes (name, machine, region, number, epoch, source, opened, given_at_ms)
               SELECT id, ?, ?, ?, ?, NULL, ?, ? FROM instances WHERE id = ? ON CONFLICT (name) DO NOTHING""",
            *machine,
            number + 1,
            epoch_of(number + 1, mark),
            number,
            now,
            name,
        )
        for name, number in held
    )


def epoch_of(number: int, mark: str) -> str:
    """As clients see it. The mark tells apart the same number of a core before and after it was restored."""
    return f"{number}-{mark}"


def number_of(epoch: str) -> int:
    """The number of its home; 0 for an epoch of the time before there were homes."""
    number, mark, _ = epoch.partition("-")
    return int(number) if mark and number.isdecimal() else 0


def _give(
    tx: Transaction, name: str, to: Machine, number: int, source: str | None, opened: int | None, mark: str, now: int
) -> Home:
    home = Home(name, to.machine, to.region, number, epoch_of(number, mark), source, opened)
    tx.execute(
        """INSERT INTO homes (name, machine, region, number, epoch, source, opened, given_at_ms)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?)
           ON CONFLICT (name) DO UPDATE SET machine = excluded.machine, region = excluded.region,
               number = excluded.number, epoch = excluded.epoch, source = excluded.source, opened = excluded.opened,
               given_at_ms = excluded.given_at_ms""",
        *home,
        now,
    )
    return home
