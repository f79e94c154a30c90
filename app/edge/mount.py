"""Mount: whether a database lies on a replicating file system, and which side of it this machine is on."""

from enum import Enum
from pathlib import Path

from app.errors import Unavailable
from app.regions import Regions


class Mount(Enum):
    """A replica's file is written by the file system alone: to open it for writing would end the replication."""

    NONE = "none"
    PRIMARY = "primary"
    REPLICA = "replica"


class AtPrimaryOnly(Unavailable):
    """A replica cannot do this; the primary can, so that is where the request goes."""

    rests_on_rows = True


def may_block(path: Path) -> bool:
    """Whether a read of this file may wait for a file system: it lies at the root of one of its own, as on LiteFS."""
    try:
        return path.parent.resolve().is_mount()
    except OSError:
        # A mount that is lost answers so.
        return True


def mount_of(regions: Regions) -> Mount:
    """What the settings say, for a command that runs beside the server. The lease is static: so is this."""
    if not regions.replicated:
        return Mount.NONE
    return Mount.PRIMARY if regions.in_primary_region else Mount.REPLICA
