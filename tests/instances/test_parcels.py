"""Parcels: a copy waits for who fetches it, and not for who has gone."""

import os
from pathlib import Path

import msgspec
import pytest

from app.edge.peers import Peers
from app.errors import NotFound
from app.instances import parcels
from app.instances.parcels import PIECE, Parcel, Parcels
from app.regions import Regions

pytestmark = pytest.mark.anyio

SIZE = 25


@pytest.fixture
def peers() -> Peers:
    return Peers(Regions(), "m1")


@pytest.fixture
def made(tmp_path: Path, peers: Peers, monkeypatch: pytest.MonkeyPatch) -> Parcels:
    monkeypatch.setattr(parcels, "PIECE_BYTES", 10)
    return Parcels(tmp_path, peers)


async def write(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x" * SIZE)


async def pack(made: Parcels) -> str:
    said = msgspec.msgpack.decode(await made.pack(write), type=Parcel)
    assert said.size == SIZE
    return said.token


async def piece(peers: Peers, token: str, offset: int) -> bytes:
    return await peers.answers[PIECE](msgspec.msgpack.encode((token, offset)), "m2")


def waiting(folder: Path) -> set[str]:
    return set(os.listdir(folder / parcels.FOLDER))


async def test_a_copy_comes_in_pieces_and_goes_with_the_last(made: Parcels, peers: Peers, tmp_path: Path) -> None:
    token = await pack(made)
    assert [len(await piece(peers, token, offset)) for offset in (0, 10, 20)] == [10, 10, 5]
    assert waiting(tmp_path) == set()
    with pytest.raises(NotFound):
        await piece(peers, token, 0)


async def test_what_is_no_copy_is_not_given_and_does_not_go(made: Parcels, peers: Peers, tmp_path: Path) -> None:
    """With its last piece a copy is removed: asked for by a path, that would be an instance's own file."""
    await pack(made)
    room = tmp_path / "room.db"
    room.write_bytes(b"all of it")
    with pytest.raises(NotFound):
        await piece(peers, f"../{room.name}", 0)
    assert room.exists()


async def test_a_copy_that_nobody_asks_for_any_more_is_let_go(made: Parcels, peers: Peers, tmp_path: Path) -> None:
    """The machine that wanted it is gone; the disk would fill, a copy with each that comes back."""
    abandoned, fetched = await pack(made), await pack(made)
    for token in (abandoned, fetched):
        path = tmp_path / parcels.FOLDER / token
        long_ago = path.stat().st_mtime - 2 * parcels.KEPT_SECONDS
        os.utime(path, (long_ago, long_ago))
    await piece(peers, fetched, 0)
    newest = await pack(made)
    assert waiting(tmp_path) == {fetched, newest}
