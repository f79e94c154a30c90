"""Connection and Transaction: what a function that reads takes, and what one that writes takes."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from app.errors import Unavailable

Row = tuple[Any, ...]
# Asked `(archived, sql, *values)` for rows that have left the core.
FetchArchived = Callable[..., list[Row]]


class TransactionLost(Unavailable):
    """A fault (a full disk, a ROLLBACK) ended the transaction under the job that was running in it."""

    def __init__(self) -> None:
        super().__init__("The write was rolled back: repeat the request")


class Connection:
    """Reads. A function that takes one of these changes nothing."""

    __slots__ = ("raw",)

    def __init__(self, raw: Any) -> None:
        self.raw = raw

    def fetch(self, sql: str, *values: Any) -> list[Row]:
        rows: list[Row] = self.raw.execute(sql, values).fetchall()
        return rows

    def fetch_one(self, sql: str, *values: Any) -> Row | None:
        row: Row | None = self.raw.execute(sql, values).fetchone()
        return row


class Transaction(Connection):
    """Reads and writes inside the group's transaction. It offers neither a commit nor a script.

    Once the transaction is gone every call raises TransactionLost: a job that went on after a full disk
    would otherwise commit its statements one by one.
    """

    __slots__ = ("_archived", "_archived_known", "_fetch_archived", "announced")

    def __init__(self, raw: Any, fetch_archived: FetchArchived | None = None) -> None:
        super().__init__(raw)
        self.announced: list[tuple[str, str]] = []
        self._fetch_archived = fetch_archived
        self._archived: Archived | None = None
        self._archived_known = False

    def fetch(self, sql: str, *values: Any) -> list[Row]:
        self._require_open()
        return super().fetch(sql, *values)

    def fetch_one(self, sql: str, *values: Any) -> Row | None:
        self._require_open()
        return super().fetch_one(sql, *values)

    def execute(self, sql: str, *values: Any) -> int:
        """Run one statement; the number of rows that it changed."""
        self._require_open()
        changed: int = self.raw.execute(sql, values).rowcount
        return changed

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> int:
        """Run one statement for each row; the number of rows that they changed."""
        self._require_open()
        changed: int = self.raw.executemany(sql, rows).rowcount
        return changed

    def fetch_archived(self, sql: str, *values: Any) -> list[Row]:
        """Ask the archive for rows that have left this database; none where nothing ever has.

        What the archive says holds until this transaction ends: a row is in it before it leaves here, and no row
        leaves here meanwhile. Unavailable where it cannot be asked.
        """
        if not self._archived_known:
            self._archived, self._archived_known = find_archived(self), True
        if self._archived is None:
            return []
        if self._fetch_archived is None:
            raise Unavailable("Rows have left the database, and nobody said where to")
        return self._fetch_archived(self._archived, sql, *values)

    def _require_open(self) -> None:
        if not self.raw.in_transaction:
            raise TransactionLost


class Archived(NamedTuple):
    """What the core knows of its archive: the file's own id, and the commits of it that the core relies on."""

    id: str
    moves: int


def find_archived(core: Connection) -> Archived | None:
    """None while nothing has ever left the core."""
    row = core.fetch_one("SELECT id, moves FROM archived")
    return Archived(*row) if row else None


class Position(NamedTuple):
    """How far the database has come; written `epoch-sequence` in `X-Txid`."""

    epoch: str
    sequence: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.sequence}"


def read_position(connection: Connection) -> Position:
    """How far this copy of the core has come."""
    row = connection.fetch_one("SELECT epoch, sequence FROM replication_token")
    return Position(*row) if row else Position("", 0)
