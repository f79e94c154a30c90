"""What the doctor asks of homes: which files on this machine are not their instances any more."""

from pathlib import Path

from app.edge import homes, sqlite
from app.edge.transaction import Connection
from app.errors import Unavailable
from app.instances.store import list_held
from app.settings import Settings

ALONE = "this machine is alone"
NAMED = 5


def check_leftovers(settings: Settings, database: Path) -> str:
    """Unavailable when there are any: what a past owner wrote last may be in them alone."""
    regions = settings.regions
    if not regions.clustered:
        return ALONE
    found = [path.name for path in settings.instances_dir.glob("*/*.db.before-*Z")]
    with sqlite.snapshot(database) as raw:
        connection = Connection(raw)
        for name in list_held(settings.instances_dir):
            home = homes.find_home(connection, name)
            # What was handed over is whole where it went.
            if home is not None and regions.machine not in (home.machine, home.source):
                found.append(f"{name}.db")
    if found:
        listed = ", ".join(sorted(found)[:NAMED]) + (", …" if len(found) > NAMED else "")
        raise Unavailable(f"files of instances that live elsewhere or were begun anew: {len(found)} ({listed})")
    return "none"
