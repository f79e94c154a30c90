"""What the doctor asks of the backup."""

import asyncio
from itertools import pairwise
from pathlib import Path

from app.edge import litestream, replica
from app.edge.clock import now_ms, parse_instant
from app.edge.control import Control, Listed, Synced
from app.edge.litestream import replica_of
from app.errors import Unavailable
from app.instances.replicas import FOLDER
from app.ops.backup import list_copies
from app.settings import Settings

NO_BACKUP = "no backup: LITESTREAM_REPLICA_URL is not set"
NAMED = 5


def check_litestream(settings: Settings, database: Path) -> str:
    """How many files it holds, and how the core stands. Unavailable when it does not answer or cannot ship."""
    if settings.backup_url is None:
        return NO_BACKUP
    files, synced = asyncio.run(_ask(settings, database.absolute()))
    held = f"holds {len(files)} files"
    if synced is None:
        return f"{held}, the core is another machine's"
    if synced.local > synced.replica:
        raise Unavailable(f"{held}; the replica lacks {synced.local - synced.replica} transactions of the core")
    last = max((parse_instant(one.synced_at) for one in files if one.synced_at), default=None)
    ago = "nothing shipped yet" if last is None else f"last shipped {max(0, now_ms() - last) // 1000} s ago"
    return f"{held}, {ago}, nothing of the core is lacking"


async def _ask(settings: Settings, database: Path) -> tuple[list[Listed], Synced | None]:
    control = Control(settings.backup_socket)
    try:
        files = await control.list_files()
        return files, await control.sync(database) if str(database) in {one.path for one in files} else None
    finally:
        await control.close()


def check_old_epochs(settings: Settings) -> str:
    """Copies that past owners left. Unavailable when one of them shipped after the next had begun: that is not in
    the instance, and only a person can say what it is worth."""
    url = settings.backup_url
    if url is None:
        return NO_BACKUP
    old, late = 0, []
    for copy in list_copies(settings, url):
        epochs = replica.list_folders(replica_of(url, FOLDER, copy.name)) if copy.is_instance else []
        if len(epochs) < 2:
            continue
        old += len(epochs) - 1
        if _shipped_late(url, copy.name, epochs):
            late.append(copy.name)
    if late:
        listed = ", ".join(late[:NAMED]) + (", …" if len(late) > NAMED else "")
        raise Unavailable(f"a past owner shipped after the next had begun: {len(late)} instances ({listed})")
    return f"{old} of past owners" if old else "none"


def _shipped_late(url: str, instance_id: str, epochs: list[str]) -> bool:
    spans = []
    for epoch in epochs:
        times = [one.at for one in litestream.list_shipped(replica_of(url, FOLDER, instance_id, epoch))]
        if times:
            spans.append((min(times), max(times)))
    spans.sort()
    return any(last > following[0] for (_, last), following in pairwise(spans))
