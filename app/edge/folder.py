"""The data folder: where the databases are, and the secrets that a first start leaves for the person at the keys."""

import fcntl
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

SECRET_MODE = 0o600
ADMIN_TOKEN_FILE = "admin-token"
ADMIN_TOKEN_BYTES = 32
# Held by every server on the data, so that nobody puts other files in their place meanwhile.
SERVE_LOCK = "serve.lock"


def find_secret(path: Path) -> str | None:
    """What a secret file holds; None when there is none."""
    try:
        return path.read_text().strip() or None
    except FileNotFoundError:
        return None


def keep_secret(path: Path, make: Callable[[], str]) -> str:
    """The secret in `path`, made when it is new. Of two processes that make it at once, both get the same one."""
    kept = find_secret(path)
    if kept is not None:
        return kept
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    _write_private(fresh, make())
    try:
        # A link appears whole or not at all, and never takes the place of what is there.
        os.link(fresh, path)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
    return path.read_text().strip()


def keep_admin_token(data_dir: Path) -> str:
    """The operator's token in development, where ADMIN_TOKEN is not set."""
    return keep_secret(data_dir / ADMIN_TOKEN_FILE, lambda: secrets.token_urlsafe(ADMIN_TOKEN_BYTES))


def is_private(path: Path) -> bool:
    """Whether only its owner may read a file."""
    return not stat.S_IMODE(path.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO)


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, SECRET_MODE)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())


def try_lock(path: Path, *, shared: bool = False) -> int | None:
    """Lock a file until its descriptor, and every copy of it in a child, is closed; None while others hold it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, SECRET_MODE)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
