"""Parcels: copies of instances' files on their way to another machine, asked for in bounded pieces."""

import asyncio
import os
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from app.edge.peers import Peers
from app.errors import NotFound, Unavailable
from app.regions import Peer

FOLDER = ".parcels"
PIECE = "/peer/piece"
PIECE_BYTES = 4 << 20
TOKEN_BYTES = 8
# To copy the largest instance, on a disk that has other things to do.
PACK_SECONDS = 30.0
# Who fetches a copy has asked for a piece of it since.
KEPT_SECONDS = 3 * PACK_SECONDS


class Parcel(msgspec.Struct, frozen=True):
    """A copy that waits to be fetched."""

    token: str
    size: int


class Parcels:
    """Those of this machine wait in a folder of their own; nothing of it outlives the process."""

    def __init__(self, folder: Path, peers: Peers) -> None:
        self._folder = folder / FOLDER
        self._peers = peers
        shutil.rmtree(self._folder, ignore_errors=True)
        peers.answers[PIECE] = self._answer

    async def pack(self, write: Callable[[Path], Awaitable[None]]) -> bytes:
        """What is said of a copy that `write` makes: the answer to who asked for it."""
        await asyncio.to_thread(self._forget_abandoned)
        token = secrets.token_hex(TOKEN_BYTES)
        path = self._folder / token
        await write(path)
        return msgspec.msgpack.encode(Parcel(token, path.stat().st_size))

    def _forget_abandoned(self) -> None:
        """Whoever asked for them has gone, or never heard of them."""
        oldest = time.time() - KEPT_SECONDS
        for path in self._folder.glob("*"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < oldest:
                    path.unlink()

    async def fetch(self, peer: Peer, path: str, instance_id: str, target: Path) -> None:
        """Ask a machine for a copy and write it to `target`. Unavailable."""
        said = await self._peers.ask(peer, path, instance_id.encode(), seconds=PACK_SECONDS)
        parcel = msgspec.msgpack.decode(said, type=Parcel)
        await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)
        with target.open("wb") as file:
            while file.tell() < parcel.size:
                wanted = msgspec.msgpack.encode((parcel.token, file.tell()))
                piece = await self._peers.ask(peer, PIECE, wanted, seconds=PACK_SECONDS)
                if not piece:
                    raise Unavailable("A copy on another machine ended too early")
                await asyncio.to_thread(file.write, piece)

    async def _answer(self, question: bytes, machine: str) -> bytes:
        token, offset = msgspec.msgpack.decode(question, type=tuple[str, int])
        if not token.isalnum():
            raise NotFound("There is no such copy", certain=True)
        return await asyncio.to_thread(_read_piece, self._folder / token, offset)


def _read_piece(path: Path, offset: int) -> bytes:
    """A piece; the copy goes with its last one."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            piece = file.read(PIECE_BYTES)
            is_last = file.tell() == path.stat().st_size
            os.utime(file.fileno())
    except FileNotFoundError as error:
        raise NotFound("There is no such copy", certain=True) from error
    if is_last:
        path.unlink(missing_ok=True)
    return piece
