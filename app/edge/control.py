"""Control: what a running Litestream is asked over its socket."""

import asyncio
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from app.errors import Unavailable

if TYPE_CHECKING:
    import aiohttp

CONTROL_SECONDS = 5
# Beyond the time that Litestream gives itself: its own answer says more than a broken connection.
LEEWAY_SECONDS = 1
NOT_HELD = (404, 409)


class NotReady(Unavailable):
    """Nobody answers at the socket, or who answers does not hold that file (yet)."""


class Info(NamedTuple):
    pid: int
    version: str
    files: int


class Listed(NamedTuple):
    """A file that it holds; `synced_at` is when something of it was last shipped."""

    path: str
    status: str
    synced_at: str | None


class Synced(NamedTuple):
    """How far the file has come, and how far its replica has."""

    local: int
    replica: int


class Control:
    """One connection or a few to the socket, opened when they are needed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._session: aiohttp.ClientSession | None = None

    async def info(self) -> Info:
        answer = await self._ask("GET", "/info")
        return Info(answer["pid"], answer["version"], answer["database_count"])

    async def list_files(self) -> list[Listed]:
        answer = await self._ask("GET", "/list")
        return [Listed(one["path"], one["status"], one.get("last_sync_at")) for one in answer["databases"]]

    async def register(self, path: Path, url: str) -> None:
        await self._ask("POST", "/register", {"path": str(path), "replica_url": url})

    async def unregister(self, path: Path, seconds: int = CONTROL_SECONDS) -> None:
        """Ship the rest, then let go. Unavailable when the rest could not be shipped; it has let go all the same."""
        await self._ask("POST", "/unregister", {"path": str(path), "timeout": seconds}, seconds)

    async def sync(self, path: Path, *, wait: bool = True, seconds: int = CONTROL_SECONDS) -> Synced:
        """Read what is committed; with `wait` until the replica has it."""
        answer = await self._ask("POST", "/sync", {"path": str(path), "wait": wait, "timeout": seconds}, seconds)
        return Synced(answer["txid"], answer["replicated_txid"])

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _ask(self, method: str, path: str, body: Any = None, seconds: int = CONTROL_SECONDS) -> Any:
        """One question. NotReady, or Unavailable with what Litestream said."""
        session = self._session or await self._open()
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=seconds + LEEWAY_SECONDS)
        try:
            async with session.request(
                method, f"http://litestream{path}", data=msgspec.json.encode(body) if body else None, timeout=timeout
            ) as response:
                answer = msgspec.json.decode(await response.read())
        except TimeoutError as error:
            raise Unavailable(f"Litestream did not answer within {seconds} s") from error
        except (aiohttp.ClientError, OSError, msgspec.DecodeError) as error:
            raise NotReady(f"No Litestream answers at {self._path}") from error
        if response.status != 200:
            kind = NotReady if response.status in NOT_HELD else Unavailable
            raise kind(f"Litestream: {answer.get('error', response.status)}")
        return answer

    async def _open(self) -> "aiohttp.ClientSession":
        # It takes a while to import, and only who has a backup needs it.
        aiohttp = await asyncio.to_thread(importlib.import_module, "aiohttp")
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self._path.absolute())))
        return self._session
