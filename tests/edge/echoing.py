"""A server of sockets that say back what they hear, and do what a few words tell them.

`python -m tests.edge.echoing` serves on the loop and the parser of production, and says its port.
"""

import os
import socket

import uvicorn
from starlette.requests import Request
from starlette.responses import Response

import app  # noqa: F401 - before anything that could load another SQLite
from app.edge import framing
from app.edge.cors import Cors
from app.edge.framing import BINARY
from app.edge.front import Front
from app.edge.placement import anywhere
from app.edge.request_log import RequestLog
from app.edge.router import Route, Router
from app.edge.socket import Socket
from app.edge.sockets import Sockets
from app.edge.upgrade import WEBSOCKET, Upgrade
from app.edge.websocket import protocol_of
from app.errors import Unauthenticated

BACKLOG = 2_048
SLICE_BYTES = 65_535


class Echo:
    """A listener. `close 4408 Too slow` closes, `crash` fails, `all …` reaches all, `slices …` comes back cut."""

    __slots__ = ("_others", "socket")

    def __init__(self, connection: Socket, others: "set[Echo]") -> None:
        self.socket = connection
        self._others = others
        others.add(self)

    def on_message(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            self.socket.write_framed(framing.frame(BINARY, message))
            return
        word, _, rest = message.partition(" ")
        if word == "close":
            code, _, reason = rest.partition(" ")
            self.socket.close(int(code), reason)
        elif word == "crash":
            raise LookupError("as it was told")
        elif word == "all":
            framed = framing.frame_text(message.encode())
            for other in self._others:
                other.socket.write_framed(framed)
        elif word == "slices":
            # Cut in the middle of characters; what follows waits, and a ping does not.
            encoded = rest.encode()
            self.socket.write_sliced(encoded[at : at + SLICE_BYTES] for at in range(0, len(encoded), SLICE_BYTES))
            self.socket.ping()
            self.socket.write(b"after")
        else:
            self.socket.write(message.encode())

    def on_drain(self) -> None:
        """Nothing was kept back."""

    def on_shutdown(self) -> None:
        self.socket.write_joined([b"going", b"away"])
        self.socket.close(1012, "restart")

    def on_close(self, code: int) -> None:
        self._others.discard(self)


async def echo(request: Request) -> Response:
    """Say back what is heard."""
    others: set[Echo] = request.scope["state"].setdefault("echoes", set())
    return Upgrade(lambda connection: Echo(connection, others))


async def refuse(request: Request) -> Response:
    """Let nobody in."""
    raise Unauthenticated("Authorization required")


ROUTES = (
    Route(WEBSOCKET, "/echo", anywhere, echo),
    Route(WEBSOCKET, "/refused", anywhere, refuse),
)


def serve() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listener:
        state: dict[str, object] = {}
        front = Front(Router(ROUTES), Cors(()), RequestLog(enabled=False), lambda *_: None)

        async def app(scope: dict[str, object], receive: object, send: object) -> None:
            scope["state"] = state
            await front(scope, receive, send)  # type: ignore[arg-type]

        os.write(1, b"%d\n" % listener.getsockname()[1])
        config = uvicorn.Config(
            app,
            loop="uvloop",
            http="httptools",
            ws=protocol_of(Sockets()),
            lifespan="off",
            log_config=None,
            access_log=False,
        )
        uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    serve()
