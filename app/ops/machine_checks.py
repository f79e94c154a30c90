"""What the doctor asks of a machine that is one of several: LiteFS, its mount, and its place among the others."""

import http.client
import os
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from app.edge import folder, sqlite
from app.edge.daemon import LOCK_FILE
from app.edge.node import MAX_LAG_SECONDS
from app.errors import Unavailable
from app.ops.metrics import is_private
from app.regions import Regions
from app.settings import Settings

ASK_SECONDS = 2.0
# Nothing is sent there: it only has the kernel say which address of ours it would send from.
OUTSIDE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
NO_REPLICATION = "one machine: nothing is replicated"


class Info(msgspec.Struct):
    isPrimary: bool


def check_mount(settings: Settings, database: Path) -> str:
    """LiteFS has the core, in WAL, and what belongs on the volume is not in the mount. Unavailable."""
    if not settings.regions.replicated:
        return NO_REPLICATION
    if not database.with_name(f"{database.name}-pos").exists():
        raise Unavailable(f"LiteFS does not replicate {database}: there is no {database.name}-pos beside it")
    mode = _journal_mode(database)
    if mode != sqlite.WAL:
        raise Unavailable(f"the core's journal mode is {mode}: replicas stop or miss what is written")
    inside = [path for path in (settings.data_dir, settings.instances_dir) if _is_in(path, database.parent)]
    if inside:
        raise Unavailable(f"{', '.join(map(str, inside))}: a mount holds databases only, this belongs on the volume")
    return f"{database.parent}, {mode}"


def check_ledger_place(settings: Settings, database: Path, ledger: Path) -> str:
    """The ledger's old rows stay on the primary's own volume. Unavailable."""
    if settings.regions.replicated and _is_in(ledger, database.parent):
        raise Unavailable(f"{ledger} is on the mount: every machine would carry it")
    return str(ledger)


def check_role(regions: Regions) -> str:
    """LiteFS and the settings agree on who the primary is, and only one machine can be it. Unavailable."""
    if not regions.replicated:
        return NO_REPLICATION
    is_primary = _ask_role(regions.litefs_url)
    said = "the primary" if is_primary else "a replica"
    if is_primary != regions.in_primary_region:
        raise Unavailable(
            f"LiteFS calls this machine in {regions.region} {said}, PRIMARY_REGION={regions.primary_region}"
        )
    candidates = count_candidates(regions)
    if candidates is not None and candidates != 1:
        raise Unavailable(f"{candidates} machines are in {regions.primary_region}: exactly one may be the primary")
    return f"{said}, {regions.primary_region} has one machine" if candidates else said


def count_candidates(regions: Regions) -> int | None:
    """How many machines run in the primary region; None where nobody lists them. Unavailable."""
    if regions.peers:
        return sum(peer.region == regions.primary_region for peer in regions.peers)
    if not regions.on_fly:
        return None
    try:
        found = socket.getaddrinfo(f"{regions.primary_region}.{regions.app_name}.internal", None, socket.AF_INET6)
    except OSError as error:
        raise Unavailable(f"the machines in {regions.primary_region} cannot be looked up: {error}") from error
    return len({address[4][0] for address in found})


def check_lag(regions: Regions, database: Path) -> str:
    """How far behind the primary a replica is. Unavailable when that is too far, or not known."""
    if not regions.replicated:
        return NO_REPLICATION
    if regions.in_primary_region:
        return "none: this is the primary"
    # It brings an HTTP client along, which a machine alone has no use for.
    from app.edge.replication.litefs import lag_of

    lag = lag_of(database.parent / ".lag")
    if lag is None:
        raise Unavailable("not known: this replica has not heard from the primary")
    if lag >= MAX_LAG_SECONDS * 1000:
        raise Unavailable(f"{lag // 1000} s behind the primary: nothing is answered here")
    return f"{lag} ms"


def check_closed(regions: Regions, addresses: Iterable[str]) -> str:
    """LiteFS's HTTP, which asks nobody who they are, is not reached at a public address of ours. Unavailable."""
    if not regions.replicated:
        return NO_REPLICATION
    port = urlsplit(regions.litefs_url).port or 80
    reached = [address for address in addresses if _answers(address, port)]
    if reached:
        raise Unavailable(
            f"anybody can write the core at {', '.join(reached)} port {port}: listen on a private address"
        )
    return f"port {port} is private"


def public_addresses() -> list[str]:
    """The addresses that this machine sends from to the outside, those of a private network left out."""
    found = []
    for family, outside in OUTSIDE:
        # Where there is no such network, nothing of ours is reached through it.
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((outside, 9))
            found.append(str(probe.getsockname()[0]))
    return [address for address in found if not is_private(address)]


def check_bundle(settings: Settings, environ: Mapping[str, str]) -> str:
    """AWS_CA_BUNDLE is not there for a Litestream that somebody runs by hand. Unavailable."""
    if environ.get("AWS_CA_BUNDLE") and (settings.backup_url or "").startswith("s3:"):
        raise Unavailable("AWS_CA_BUNDLE is set: run by hand, Litestream cannot reach the bucket (the server's can)")
    return "nothing that Litestream trips over"


def check_left_behind(data_dir: Path) -> str:
    """No Litestream holds the data without a server. Unavailable; the next server ends it."""
    if _is_free(data_dir / LOCK_FILE) or not _is_free(data_dir / folder.SERVE_LOCK):
        return "none"
    raise Unavailable("a Litestream runs without its server: the next start ends it, and ships what it had left")


def _is_free(lock: Path) -> bool:
    if not lock.exists():
        return True
    held = folder.try_lock(lock)
    if held is None:
        return False
    os.close(held)
    return True


def _journal_mode(database: Path) -> str:
    raw = sqlite.connect(database, read_only=True)
    try:
        return sqlite.journal_mode(raw)
    finally:
        raw.close()


def _is_in(path: Path, mount: Path) -> bool:
    return path.absolute().is_relative_to(mount.absolute())


def _ask_role(url: str) -> bool:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=ASK_SECONDS)
    try:
        connection.request("GET", f"{parts.path}/info")
        return msgspec.json.decode(connection.getresponse().read(), type=Info).isPrimary
    except (OSError, http.client.HTTPException, msgspec.MsgspecError) as error:
        raise Unavailable(f"LiteFS does not answer at {url}") from error
    finally:
        connection.close()


def _answers(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), ASK_SECONDS).close()
    except OSError:
        return False
    return True
