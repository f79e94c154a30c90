"""The guest: a client that writes without a pause and comes back as the SDKs do.

It tries one machine after the other, says how far it has heard, and repeats what nobody acknowledged. All the way it
keeps count: a change that it is not told of, or told twice, is a failure.
"""

import itertools
import json
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Any, NamedTuple
from urllib.parse import urlencode

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from bench.process import Refused

KEYS = 16
AGAIN_SECONDS = 0.05
HEAR_SECONDS = 10.0
LOOK_SECONDS = 0.002
WAIT_SECONDS = 60.0

Frame = dict[str, Any]


class Greeting(NamedTuple):
    """When it was let in (`auth_success`), and by the owner of which epoch."""

    at: float
    epoch: str


class Guest(threading.Thread):
    """Writes into one instance from `start` to `finish`; `ports` are those of the machines that it knows."""

    def __init__(self, instance_id: str, token: str, ports: list[int]) -> None:
        super().__init__(daemon=True)
        self.greetings: list[Greeting] = []
        # When each of its changes was acknowledged.
        self.acknowledged: list[float] = []
        self._instance_id = instance_id
        self._token = token
        self._ports = ports
        self._seq = 0
        self._values: dict[str, str] = {}
        self._stopped = threading.Event()
        self._failure: Exception | None = None

    @property
    def epoch(self) -> str:
        return self.greetings[-1].epoch

    def run(self) -> None:
        try:
            self._write_on()
        except Exception as failed:  # noqa: BLE001 - it is said to whoever waits for this guest
            self._failure = failed

    def wait_for(self, count: int) -> None:
        """Until so many more of its changes are acknowledged."""
        wanted = len(self.acknowledged) + count
        self._wait(lambda: len(self.acknowledged) >= wanted)

    def back(self, since: float, old_epoch: str | None = None) -> tuple[float, float]:
        """Seconds from `since` until it was let in, and until a change was acknowledged after that. With `old_epoch`,
        by another owner than that one's."""
        self._wait(lambda: self._find_back(since, old_epoch) is not None)
        found = self._find_back(since, old_epoch)
        assert found is not None
        return found

    def longest_gap(self, since: float, until: float) -> float:
        """The longest time between two acknowledgements, of those between two moments."""
        first = max(0, bisect_right(self.acknowledged, since) - 1)
        times = self.acknowledged[first : bisect_right(self.acknowledged, until) + 1]
        return max((later - earlier for earlier, later in itertools.pairwise(times)), default=0.0)

    def finish(self) -> int:
        """End, and say how many changes were acknowledged. Refused unless one who comes anew finds these, each as one
        `seq`, and nothing else."""
        self._stopped.set()
        self.join()
        self._raise_failure()
        written = len(self.acknowledged)
        stranger = Guest(self._instance_id, self._token, self._ports)
        with stranger._come():
            found, values = stranger._seq, stranger._values
        if (found, self._seq, values) != (written, written, self._values):
            raise Refused(f"{written} changes were acknowledged, {found} are there, {self._seq} were told")
        return written

    def _write_on(self) -> None:
        number = 0
        while True:
            with suppress(WebSocketException, OSError), self._come() as socket:
                # What was not acknowledged is said again before the end: it may have been committed.
                while True:
                    self._set(socket, number)
                    number += 1
                    if self._stopped.is_set():
                        return

    @contextmanager
    def _come(self) -> Iterator[ClientConnection]:
        """A socket that has been greeted and told all that was missed. It tries until somebody lets it in."""
        until = time.monotonic() + WAIT_SECONDS
        with ExitStack() as stack:
            socket: ClientConnection
            for port in itertools.cycle(self._ports):
                with suppress(WebSocketException, OSError):
                    socket = stack.enter_context(self._dial(port))
                    self._greet(socket)
                    break
                stack.close()
                if time.monotonic() > until:
                    raise Refused("no machine lets the client in")
                time.sleep(AGAIN_SECONDS)
            yield socket

    def _dial(self, port: int) -> AbstractContextManager[ClientConnection]:
        query = {"apiKey": self._token}
        if self.greetings:
            query |= {"since": str(self._seq), "epoch": self.epoch}
        address = f"ws://127.0.0.1:{port}/sync/{self._instance_id}?{urlencode(query)}"
        return connect(address, proxy=None, compression=None, close_timeout=1)

    def _greet(self, socket: ClientConnection) -> None:
        greeting = _hear(socket)
        if greeting["type"] != "auth_success":
            raise ConnectionError(greeting["type"])
        let_in = Greeting(time.monotonic(), greeting["epoch"])
        if not self.greetings:
            self._take_all(_hear(socket))
        while self._seq < greeting["seq"]:
            self._take(_hear(socket))
        self.greetings.append(let_in)

    def _set(self, socket: ClientConnection, number: int) -> None:
        """Say one change, the same under the same name however often, until it is acknowledged."""
        mark, key, value = f"op-{number}", f"key-{number % KEYS}", f"value-{number}"
        socket.send(json.dumps({"type": "set", "key": key, "value": value, "opId": mark}))
        while (frame := _hear(socket)).get("opId") != mark or frame["type"] == "key_updated":
            self._take(frame)
        if frame["type"] != "ack":
            # What could not be committed now is said again on a connection of its own.
            raise ConnectionError(frame["type"])
        self.acknowledged.append(time.monotonic())

    def _take_all(self, frame: Frame) -> None:
        self._values = {key: entry["value"] for key, entry in frame["data"].items()}
        self._seq = frame.get("seq", 0)

    def _take(self, frame: Frame) -> None:
        if frame["type"] == "sync":
            raise Refused("the client was given everything anew")
        if frame["type"] == "key_updated":
            if frame["seq"] != self._seq + 1:
                raise Refused(f"the change after seq {self._seq} was {frame['seq']}")
            self._values[frame["key"]] = frame["value"]
            self._seq = frame["seq"]

    def _find_back(self, since: float, old_epoch: str | None) -> tuple[float, float] | None:
        let_in = (one.at for one in tuple(self.greetings) if one.at > since and one.epoch != old_epoch)
        at = next(let_in, None)
        if at is None or not self.acknowledged or self.acknowledged[-1] <= at:
            return None
        return at - since, self.acknowledged[bisect_right(self.acknowledged, at)] - since

    def _wait(self, look: Callable[[], bool]) -> None:
        until = time.monotonic() + WAIT_SECONDS
        while not look():
            self._raise_failure()
            if time.monotonic() > until:
                raise Refused(f"the client wrote nothing more for {WAIT_SECONDS:g} s")
            time.sleep(LOOK_SECONDS)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise Refused(str(self._failure) or type(self._failure).__name__) from self._failure


def _hear(socket: ClientConnection) -> Frame:
    frame: Frame = json.loads(socket.recv(timeout=HEAR_SECONDS))
    return frame
