"""A stand-in for Fly's proxy: takes a request to the nearest machine, and on from there when it says `fly-replay`.

One request for each connection of a client. The region that is nearest is what `x-near` says.
"""

import asyncio
import time
from contextlib import suppress
from typing import NamedTuple

from cluster.own_loop import OwnLoop

REPLAYED_BYTES = 1 << 20
PIECE_BYTES = 64 << 10
REPLAYS = 5
DEFAULT_SECONDS = 10.0
RETRY_SECONDS = 0.05

Headers = list[tuple[str, str]]


class Backend(NamedTuple):
    region: str
    machine: str
    port: int


class Asked(NamedTuple):
    line: str
    headers: Headers
    body: bytes | None
    upgrade: bool


class FlyProxy(OwnLoop):
    """`replays` are the wishes that were honoured, in their order."""

    def __init__(self, backends: list[Backend]) -> None:
        self.backends = backends
        self.replays: list[str] = []
        super().__init__()
        self.url = f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await self._route(reader, writer)
        writer.close()

    async def _route(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line, headers = await _read_head(reader)
        held = dict(headers)
        address = held.pop("x-client", writer.get_extra_info("peername")[0])
        near = held.pop("x-near", self.backends[0].region)
        headers = [(n, v) for n, v in headers if not n.startswith("fly-") and n not in ("x-near", "x-client", "expect")]
        headers += [("fly-client-ip", address), ("fly-region", near)]
        length = int(held.get("content-length", "0"))
        small = "transfer-encoding" not in held and length <= REPLAYED_BYTES
        asked = Asked(line, headers, await reader.readexactly(length) if small else None, "upgrade" in held)
        target = next(backend for backend in self.backends if backend.region == near)
        extra: Headers = []
        for _ in range(REPLAYS):
            answer = await self._ask(target, asked, extra, reader, writer)
            if answer is None:
                return
            if asked.body is None:
                await _say(writer, 502, "a request of more than 1 MB cannot be replayed")
                return
            self.replays.append(answer)
            target, extra = await self._honour(answer, target)
        await _say(writer, 508, "replayed in a circle")

    async def _honour(self, wish: str, source: Backend) -> tuple[Backend, Headers]:
        """Where a replay goes, and what is added to it."""
        fields = dict(field.split("=", 1) for field in wish.split(";"))
        seconds = _seconds(fields["timeout"]) if "timeout" in fields else DEFAULT_SECONDS
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for backend in self.backends:
                wanted = (fields.get("instance", backend.machine), fields.get("region", backend.region))
                if wanted == (backend.machine, backend.region) and await _is_reachable(backend):
                    said = f"instance={source.machine};region={source.region};t={time.time_ns() // 1000}"
                    return backend, [
                        ("fly-replay-src", said + (f";state={fields['state']}" if "state" in fields else ""))
                    ]
            await asyncio.sleep(RETRY_SECONDS)
        if fields.get("fallback") in ("force_self", "prefer_self"):
            return source, [("fly-replay-failed", f"instance={source.machine};reason=timeout")]
        raise OSError("nobody there")

    async def _ask(
        self,
        target: Backend,
        asked: Asked,
        extra: Headers,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> str | None:
        """The replay that the machine asks for; None once its answer was passed on."""
        far_reader, far = await asyncio.open_connection("127.0.0.1", target.port)
        connection = [] if asked.upgrade else [("connection", "close")]
        kept = [field for field in asked.headers if asked.upgrade or field[0] != "connection"]
        far.write(_head(asked.line, [*kept, *connection, *extra]) + (asked.body or b""))
        up = asyncio.create_task(_pump(reader, far)) if asked.upgrade or asked.body is None else None
        try:
            line, headers = await _read_head(far_reader)
            if "fly-replay" in dict(headers):
                return dict(headers)["fly-replay"]
            passed = [field for field in headers if asked.upgrade or field[0] != "connection"]
            writer.write(_head(line, [*passed, *connection]))
            await _pump(far_reader, writer)
            return None
        finally:
            if up is not None:
                up.cancel()
            far.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(PIECE_BYTES):
            writer.write(piece)
            await writer.drain()


async def _read_head(reader: asyncio.StreamReader) -> tuple[str, Headers]:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
    pairs = [line.split(":", 1) for line in lines]
    return first, [(name.lower(), value.strip()) for name, value in pairs]


def _head(line: str, headers: Headers) -> bytes:
    return "\r\n".join([line, *(f"{name}: {value}" for name, value in headers), "", ""]).encode("latin-1")


async def _say(writer: asyncio.StreamWriter, status: int, text: str) -> None:
    writer.write(_head(f"HTTP/1.1 {status} -", [("content-length", str(len(text))), ("connection", "close")]))
    writer.write(text.encode())
    await writer.drain()


async def _is_reachable(backend: Backend) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", backend.port)
    except OSError:
        return False
    writer.close()
    return True


def _seconds(text: str) -> float:
    return float(text[:-2]) / 1000 if text.endswith("ms") else float(text[:-1])
