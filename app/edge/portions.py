"""Portions: a question about many names, put in parts that one statement and the time of one read can hold."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from app.edge.database import Database

T = TypeVar("T")

NAMES_AT_ONCE = 200


async def read(db: Database, fn: Callable[..., list[T]], names: Sequence[str], *args: Any) -> list[T]:
    """All that `fn(connection, names, *args)`, a query of one statement, gives."""
    found: list[T] = []
    for first in range(0, len(names), NAMES_AT_ONCE):
        found += await db.read_one(fn, names[first : first + NAMES_AT_ONCE], *args)
    return found
