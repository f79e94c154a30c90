"""The cast of live instances: servers with people, and a peer that says and hears raw frames as the SDKs do."""

import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.conftest import Server
from tests.projects.conftest import Cast, Json, Key, Person

HEAR_SECONDS = 10.0
TICKET_SECRET = "what tickets are signed with in tests"
_numbers = itertools.count(1)


class Peer:
    """One socket. `hear` is the next frame; `settle` all of them up to the answer to a frame that changes nothing."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    def say(self, kind: str, **fields: Any) -> None:
        self.socket.send(json.dumps({"type": kind, **fields}))

    def hear(self, timeout: float = HEAR_SECONDS) -> Json:
        frame: Json = json.loads(self.socket.recv(timeout=timeout))
        return frame

    def greeting(self) -> tuple[Json, Json]:
        return self.hear(), self.hear()

    def until(self, kind: str) -> list[Json]:
        """Frames up to the first of a type, that one included."""
        heard = [self.hear()]
        while heard[-1]["type"] != kind:
            heard.append(self.hear())
        return heard

    def settle(self) -> list[Json]:
        mark = f"settled-{next(_numbers)}"
        self.say("batch", ops=[], opId=mark)
        heard = []
        while (frame := self.hear()).get("opId") != mark:
            heard.append(frame)
        return heard

    def closed(self) -> tuple[int, str]:
        """Hear until the server closes: the code and the reason."""
        with suppress(ConnectionClosed):
            while True:
                self.hear()
        return self.socket.close_code or 0, self.socket.close_reason or ""


@contextmanager
def dial(server: Server, instance_id: str, headers: dict[str, str] | None = None, **query: Any) -> Iterator[Peer]:
    address = f"{server.url.replace('http', 'ws')}/sync/{instance_id}?{urlencode(query)}"
    with connect(
        address, additional_headers=headers, proxy=None, max_size=64 << 20, compression=None, close_timeout=2
    ) as socket:
        yield Peer(socket)


@contextmanager
def joined(server: Server, instance_id: str, headers: dict[str, str] | None = None, **query: Any) -> Iterator[Peer]:
    """A peer that has heard its greeting."""
    with dial(server, instance_id, headers, **query) as peer:
        peer.greeting()
        yield peer


def turned_away(
    server: Server, instance_id: str, headers: dict[str, str] | None = None, **query: Any
) -> tuple[int, str]:
    """The status and the sentence of a handshake that is refused."""
    with pytest.raises(InvalidStatus) as refused, dial(server, instance_id, headers, **query):
        pass
    response = refused.value.response
    return response.status_code, json.loads(response.body or b"{}")["error"]


def ticket(cast: Cast, who: Person | Key, instance_id: str, permission: str | None = None) -> str:
    asked = {"instanceId": instance_id} | ({"permission": permission} if permission else {})
    token: str = cast.make(who, "/api/ws-token", asked)["token"]
    return token


def put(cast: Cast, who: Person | None, path: str, value: object, **headers: str) -> httpx.Response:
    """Set the key of a path."""
    return cast.call(who, "PUT", path, {"value": value}, **headers)


def in_background(work: Any, *args: Any) -> threading.Thread:
    thread = threading.Thread(target=work, args=args, daemon=True)
    thread.start()
    return thread


def fresh(prefix: str = "room") -> str:
    """An instance id that no test has used: in development it is made on first use."""
    return f"{prefix}-{next(_numbers)}"


@pytest.fixture(scope="session")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cast]:
    """One server that knows people only: nobody is let in without a credential."""
    made = Cast(tmp_path_factory.mktemp("strict") / "data")
    made.server.environ |= {"DEV_USER": "0", "JWT_SECRET": TICKET_SECRET}
    made.server.start()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One development server: whoever comes may write, in rooms made on first use."""
    server = Server(tmp_path_factory.mktemp("open") / "data")
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def alice(strict: Cast) -> Person:
    return strict.person()


@pytest.fixture
def bob(strict: Cast) -> Person:
    return strict.person()


@pytest.fixture
def room(strict: Cast, alice: Person) -> str:
    """An instance of alice's."""
    made: str = strict.instance(alice, strict.project(alice))["id"]
    return made


@pytest.fixture
def cast(strict: Cast) -> Cast:
    return strict


@pytest.fixture
def place(room: str) -> str:
    """Where that instance is asked for over HTTP."""
    return f"/api/instances/{room}"


@pytest.fixture
def two(open_server: Server) -> Iterator[tuple[Peer, Peer]]:
    """Two peers in a room of their own."""
    name = fresh()
    with ExitStack() as stack:
        yield stack.enter_context(joined(open_server, name)), stack.enter_context(joined(open_server, name))
