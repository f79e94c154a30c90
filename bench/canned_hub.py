"""The canned hub: tells every client what one of them said, and nothing else. What a crowd can listen to shows here.

All that arrives at once is told in one write for each client.
"""

import asyncio
import sys
from typing import ClassVar, cast

import uvloop

from app.edge.framing import frame_texts
from bench.dialects import WS

UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
EMPTY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
# Every change is as long as every other: its frame's head and mask, then the text.
HEAD_BYTES = 8
CHANGE_BYTES = HEAD_BYTES + len(WS.change % (0, 0))


class Client(asyncio.Protocol):
    others: ClassVar[list["Client"]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._held = b""
        self._open = False

    def data_received(self, data: bytes) -> None:
        if not self._open:
            self._greet(data)
            return
        data = self._held + data
        whole = len(data) - len(data) % CHANGE_BYTES
        self._held = data[whole:]
        texts = [data[at + HEAD_BYTES : at + CHANGE_BYTES] for at in range(0, whole, CHANGE_BYTES)]
        self.tell(frame_texts([text.replace(b'"set"', b'"key_updated"') for text in texts]))

    def tell(self, told: bytes) -> None:
        for client in self.others:
            client.transport.write(told)

    def connection_lost(self, error: Exception | None) -> None:
        if self in self.others:
            self.others.remove(self)

    def _greet(self, data: bytes) -> None:
        if b"pgrade" not in data:
            self.transport.write(EMPTY)
            self.transport.close()
            return
        self._open = True
        self.others.append(self)
        self.transport.write(UPGRADED + frame_texts([b'{"type":"sync"}']))


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Client, "127.0.0.1", port, backlog=2_048)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
