"""The beginning: an empty core is made where there is none, unless the backup holds one.

A primary that started empty on a new volume would be served, and shipped over what is to be restored. So who cannot
ask the backup does not begin either; once there is a core, nothing is asked.
"""

import time
from pathlib import Path
from urllib.parse import urlsplit

from app.edge import litestream, migrate, replica, sqlite
from app.edge.backup import CORE
from app.errors import AppError, Conflict, Unavailable

# A bucket that does not answer at once is asked again; nobody is there to start a machine a second time.
REACH_SECONDS = 10.0
RETRY_SECONDS = 0.5


def require_free(path: Path, url: str | None) -> None:
    """Before a core is made at `path`. Conflict when the backup holds one, Unavailable when it does not say."""
    if url is None or _holds_core(path):
        return
    shown = url.partition("?")[0]
    try:
        shipped = _ask(url)
    except AppError as error:
        raise Unavailable(
            f"There is no core at {path}, and the backup at {shown} does not say whether it holds one: "
            f"{error.message}. Start again when it answers, or begin an empty one with `litehouse migrate --anew`"
        ) from error
    if shipped:
        raise Conflict(
            f"There is no core at {path}, and the backup at {shown} holds one: `litehouse backup restore` brings it "
            "back, `litehouse migrate --anew` begins an empty one in its place"
        )


def _holds_core(path: Path) -> bool:
    """Whether there is more than the file that an interrupted start has left."""
    if not path.exists():
        return False
    raw = sqlite.connect(path, read_only=True)
    try:
        return migrate.read_version(raw)[0] > 0
    finally:
        raw.close()


def _ask(url: str) -> bool:
    until = time.monotonic() + REACH_SECONDS
    while True:
        try:
            return _is_shipped(url)
        except AppError:
            if time.monotonic() + RETRY_SECONDS > until:
                raise
        time.sleep(RETRY_SECONDS)


def _is_shipped(url: str) -> bool:
    # Litestream tries for minutes to reach a bucket that is away, so that is found out without it.
    if urlsplit(url).scheme in replica.LISTED and CORE not in replica.list_folders(url):
        return False
    return bool(litestream.list_shipped(litestream.replica_of(url, CORE), seconds=REACH_SECONDS))
