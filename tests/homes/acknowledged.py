"""Who writes to an instance without end, and remembers when it was acknowledged and under which epoch."""

import itertools
import threading
import time
from typing import Any, NamedTuple

from websockets.exceptions import WebSocketException

from app.edge.homes import number_of
from tests.cluster.cast import Machine
from tests.instances.conftest import Peer, dial

PAUSE_SECONDS = 0.02
AGAIN_SECONDS = 0.1
_numbers = itertools.count(1)


class Acknowledged(NamedTuple):
    """An acknowledgement: when it came, of which home, for which change."""

    at: float
    number: int
    key: str


class Writer(threading.Thread):
    """Comes in by one machine, and comes again whenever it is sent away or hears nothing for a second."""

    def __init__(self, machine: Machine, room: str) -> None:
        super().__init__(daemon=True)
        self.machine, self.room = machine, room
        self.heard: list[Acknowledged] = []
        self._leaving = threading.Event()

    def of(self, number: int) -> list[Acknowledged]:
        """What a home acknowledged."""
        return [one for one in self.heard if one.number == number]

    def run(self) -> None:
        while not self._leaving.is_set():
            try:
                with dial(self.machine, self.room) as peer:
                    self._write_on(peer)
            except (WebSocketException, OSError, TimeoutError):
                self._leaving.wait(AGAIN_SECONDS)

    def leave(self) -> None:
        self._leaving.set()
        self.join()

    def _write_on(self, peer: Peer) -> None:
        greeting, _ = peer.greeting()
        number = number_of(greeting.get("epoch", ""))
        while not self._leaving.wait(PAUSE_SECONDS):
            mark = f"op-{next(_numbers)}"
            peer.say("set", key=mark, value=1, opId=mark, timestamp=0)
            frame: dict[str, Any] = {}
            while frame.get("opId") != mark:
                frame = peer.hear(timeout=1)
            if frame["type"] == "ack":
                self.heard.append(Acknowledged(time.monotonic(), number, mark))
