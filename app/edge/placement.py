"""Placement: where a request must run.

Every route declares one. A single node is the primary and the home of all it holds, so there a placement
is a promise that nothing has to be moved for.
"""

from enum import Enum
from typing import Literal, NamedTuple

from app.edge.http import BODY_BYTES


class Place(Enum):
    HERE = "here"
    ANYWHERE = "anywhere"
    AT_PRIMARY = "at_primary"
    AT_HOME = "at_home"


class Destination(NamedTuple):
    """Where a request is taken: a region, and the one machine of it that is meant; without one, any that stands
    there."""

    region: str
    machine: str | None = None


By = Literal["path", "body", "stream"]


class Placement(NamedTuple):
    """A place, and for AT_HOME how the thing is named whose home is meant."""

    place: Place
    by: By = "path"
    name: str = "id"
    limit: int = BODY_BYTES

    @property
    def value(self) -> str:
        return self.place.value


# What is asked of this very machine: whether it lives, what it has counted.
here = Placement(Place.HERE)
anywhere = Placement(Place.ANYWHERE)
at_primary = Placement(Place.AT_PRIMARY)


def at_home(by: By = "path", name: str = "id", limit: int = BODY_BYTES) -> Placement:
    """At the home of what the path's `name` says, or the body's, or of the stream that the path names.

    A body is read first, up to `limit` bytes.
    """
    return Placement(Place.AT_HOME, by, name, limit)
