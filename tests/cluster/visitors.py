"""Visitors of a cluster: they come while machines are replaced, and keep count of what they were told.

Each does what a client should: on 503 or on nobody there it comes again, at the next machine, after `Retry-After`.
Whatever else it is told that it did not ask for stands in `wrong`.
"""

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

from tests.cluster.cast import Cluster, Machine
from tests.conftest import ADMIN_TOKEN
from tests.waiting import until

GIVEN_UP_SECONDS = 30.0
# Waited instead of the whole second that 503 asks for: a client that is more impatient than it should be.
AGAIN_SECONDS = 0.1
PAUSE_SECONDS = 0.02
# A machine lets a user in six hundred times a minute.
USER_PAUSE_SECONDS = 0.15
HEAR_SECONDS = 0.5
EVENT_TOKENS = 3

Json = dict[str, Any]


class Visitor(threading.Thread):
    """Does `visit` over and over until it is told to leave."""

    pause_seconds = PAUSE_SECONDS

    def __init__(self, cluster: Cluster, first: int) -> None:
        super().__init__(daemon=True)
        self.cluster = cluster
        self.wrong: list[str] = []
        self.turned_away = 0
        self._order = itertools.cycle([*cluster.machines[first:], *cluster.machines[:first]])
        self._at = next(self._order)
        self._leaving = threading.Event()
        self._clients = {member.name: member.client() for member in cluster.machines}

    def visit(self) -> None:
        raise NotImplementedError

    def run(self) -> None:
        try:
            while not self._leaving.wait(self.pause_seconds):
                self.visit()
        except Exception as error:  # noqa: BLE001 - a visitor that fell silent would have nothing to complain of
            self.wrong.append(repr(error))

    def leave(self) -> None:
        self._leaving.set()
        self.join(2 * GIVEN_UP_SECONDS)
        for client in self._clients.values():
            client.close()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """The answer that is no 503, from whichever machine gives it."""
        deadline = time.monotonic() + GIVEN_UP_SECONDS
        while time.monotonic() < deadline:
            try:
                answer = self._clients[self._at.name].request(method, path, json=body, headers=headers)
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code != 503:
                if not answer.is_success:
                    self.wrong.append(f"{method} {path} at {self._at.name}: {answer.status_code} {answer.text}")
                return answer
            if answer is not None and not answer.headers.get("retry-after"):
                self.wrong.append(f"{method} {path}: 503 without Retry-After")
            self.turned_away += 1
            self._at = next(self._order)
            time.sleep(AGAIN_SECONDS)
        raise TimeoutError(f"{method} {path} was not answered within {GIVEN_UP_SECONDS:g} s")


class Relay(Visitor):
    """Posts usage, one event at a time, and again with the same id until it is accepted."""

    def __init__(self, cluster: Cluster, first: int, key: str, user: str) -> None:
        super().__init__(cluster, first)
        self.key, self.user = key, user
        self.accepted: list[str] = []
        self.txid = ""

    def visit(self) -> None:
        name = f"{self.name}-{len(self.accepted)}"
        event = {"clerkId": self.user, "responseId": name, "model": "m", "provider": "p"}
        tokens = {"inputTokens": 1, "outputTokens": 2, "totalTokens": EVENT_TOKENS}
        answer = self.ask("POST", "/api/usage/events", event | tokens, **{"X-API-Key": self.key})
        if answer.is_success:
            assert answer.json()["rejected"] == 0, answer.text
            self.txid = answer.headers["x-txid"]
            self.accepted.append(name)


class Reader(Visitor):
    """Reads the quota that a relay uses up, with the position of the relay's last answer: all of it must be there."""

    def __init__(self, cluster: Cluster, first: int, relay: Relay) -> None:
        super().__init__(cluster, first)
        self.relay = relay
        self.reads = 0

    def visit(self) -> None:
        # In this order: the relay goes on meanwhile.
        accepted = len(self.relay.accepted)
        txid = {"X-Txid": self.relay.txid} if accepted else {}
        path = f"/api/usage/quota?userId={self.relay.user}"
        answer = self.ask("GET", path, **{"X-Admin-Token": ADMIN_TOKEN}, **txid)
        used = answer.json().get("used", 0)
        if answer.is_success and used < EVENT_TOKENS * accepted:
            self.wrong.append(f"{used} tokens at {self._at.name} after {accepted} accepted events")
        self.reads += 1


class Writer(Visitor):
    """Sets keys of a room, each to a value of its own."""

    pause_seconds = USER_PAUSE_SECONDS

    def __init__(self, cluster: Cluster, first: int, room: str) -> None:
        super().__init__(cluster, first)
        self.room = room
        self.kept: Json = {}

    def visit(self) -> None:
        key, value = f"k{len(self.kept)}", len(self.kept)
        if self.ask("PUT", f"/api/instances/{self.room}/keys/{key}", {"value": value}).is_success:
            self.kept[key] = value


class Listener(Visitor):
    """A socket into the room, resumed wherever a machine lets it in: every change is heard, once and in order."""

    def __init__(self, cluster: Cluster, first: int, room: str) -> None:
        super().__init__(cluster, first)
        self.room = room
        self.seq: int | None = None
        self.epoch = ""
        self.heard: Json = {}
        self.resumed = 0

    def visit(self) -> None:
        try:
            for frame in self._frames(self._at):
                self._hear(frame)
        except (ConnectionClosed, InvalidHandshake, OSError):
            self._at = next(self._order)
            self._leaving.wait(AGAIN_SECONDS)

    def _frames(self, member: Machine) -> Iterator[Json]:
        since = "" if self.seq is None else f"?since={self.seq}&epoch={self.epoch}"
        address = f"{member.url.replace('http', 'ws')}/sync/{self.room}{since}"
        with connect(address, proxy=None, compression=None, open_timeout=10, close_timeout=1) as socket:
            self.resumed += bool(since)
            while not self._leaving.is_set():
                try:
                    yield json.loads(socket.recv(timeout=HEAR_SECONDS))
                except TimeoutError:
                    continue

    def _hear(self, frame: Json) -> None:
        if frame["type"] == "auth_success":
            self.epoch = frame["epoch"]
        elif frame["type"] == "sync":
            if self.seq is not None:
                self.wrong.append(f"everything anew instead of what came after {self.seq}: {frame.get('reason')}")
            self.seq = frame["seq"]
            self.heard |= {key: entry["value"] for key, entry in frame["data"].items()}
        elif frame["type"] == "key_updated":
            if self.seq is None or frame["seq"] != self.seq + 1:
                self.wrong.append(f"{frame['seq']} after {self.seq}")
            self.seq = frame["seq"]
            self.heard[frame["key"]] = frame["value"]


def until_all(visitors: list[Visitor], come: Callable[[], bool]) -> None:
    """Wait while the visitors go on, unless one has something to complain of."""

    def all_have() -> bool:
        wrong = [visitor.wrong for visitor in visitors if visitor.wrong]
        assert not wrong, wrong
        return come()

    until(all_have, GIVEN_UP_SECONDS)
