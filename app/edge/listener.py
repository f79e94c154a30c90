"""The listener: who a socket belongs to, and what it is told."""

import asyncio
from typing import Any, Protocol


class Listener(Protocol):
    """All is called on the event loop, and must not wait."""

    def on_message(self, message: str | bytes) -> None: ...

    def on_drain(self) -> None:
        """What was written has left, after the socket was congested or a long text was written."""

    def on_shutdown(self) -> None:
        """The server stops: say what there is to say, then close the socket with 1012."""

    def on_close(self, code: int) -> None:
        """Nothing more will come; called once. The code of the first Close frame, 1006 where there was none."""


class Heir(Protocol):
    """Who goes on with a connection that is not ours to read."""

    def take(self, transport: asyncio.Transport, connections: set[Any]) -> None: ...
