"""Waiting: what another process, thread or task does is looked for again and again, until it is there."""

import asyncio
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

SOON_SECONDS = 20.0
LOOK_SECONDS = 0.03


def until(look: Callable[[], T], seconds: float = SOON_SECONDS, told: Callable[[], object] = str) -> T:
    """What `look` gives once it is true, for what other processes and threads do; `told` says what there is instead."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s {told()}"
        # A machine lets a user in six hundred times a minute.
        time.sleep(LOOK_SECONDS)
    return found


async def comes(look: Callable[[], T], seconds: float = SOON_SECONDS) -> T:
    """What `look` gives once it is true, while the loop goes on: for what its other tasks do."""
    async with asyncio.timeout(seconds):
        while not (found := look()):
            await asyncio.sleep(0.001)
    return found


def listens(port: int) -> bool:
    """Whether somebody takes connections there."""
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def is_alive(pid: int) -> bool:
    """Whether a process has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
