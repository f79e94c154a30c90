"""The HTTP protocol class: a small answer is one write, a large one is not held, an upgrade gets the socket itself."""

import asyncio
from pathlib import Path

import pytest

from app.edge.http_protocol import HELD_BYTES, JoiningTransport
from tests.conftest import Server

pytestmark = pytest.mark.anyio


class Writes(asyncio.Transport):
    """A transport that notes what it is given; another library's part, so a stand-in for it is fair."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.given.append(bytes(data))

    def close(self) -> None:
        self.closed = True


async def test_what_one_turn_writes_leaves_in_one_call() -> None:
    transport = Writes()
    joining = JoiningTransport(transport, asyncio.get_running_loop())
    joining.write(b"head")
    joining.write(b"body")
    assert transport.given == []
    await asyncio.sleep(0)
    assert transport.given == [b"headbody"]


async def test_more_than_the_bound_is_not_held() -> None:
    transport = Writes()
    joining = JoiningTransport(transport, asyncio.get_running_loop())
    joining.write(b"a" * HELD_BYTES)
    joining.write(b"b")
    assert [len(given) for given in transport.given] == [HELD_BYTES + 1]
    await asyncio.sleep(0)
    assert len(transport.given) == 1


async def test_a_close_sends_what_is_held_first() -> None:
    transport = Writes()
    joining = JoiningTransport(transport, asyncio.get_running_loop())
    joining.write(b"last")
    joining.close()
    assert (transport.given, transport.closed) == ([b"last"], True)


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        writer.write(b"GET /api/health/ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        heard = await asyncio.wait_for(reader.read(-1), 10)
        writer.close()
        await writer.wait_closed()
        return heard

    heard = asyncio.run(ask())
    assert heard.count(b"HTTP/1.1 200 OK") == 2
    assert heard.index(b"\r\n\r\nok") < heard.index(b"\r\n\r\npong")


def test_a_streamed_answer_arrives_whole(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"
    path.write_text("".join(f'{{"userId":"dev-user","id":"e{number}","totalTokens":1}}\n' for number in range(3_000)))
    assert server.command("usage", "import", str(path)).returncode == 0
    with server.client() as client:
        assert len(client.get("/api/usage/export").text.splitlines()) == 3_001
