"""Placement: where a request must run.

Every route declares one. A single node is the primary and the home of all it holds, so there a placement
is a promise that nothing has to be moved for.
"""

from enum import Enum


class Placement(Enum):
    ANYWHERE = "anywhere"
    AT_PRIMARY = "at_primary"


anywhere = Placement.ANYWHERE
at_primary = Placement.AT_PRIMARY
