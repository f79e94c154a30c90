"""Serving a fake: a Starlette app on a socket of loopback, in a thread beside the test."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

STOP_SECONDS = 20.0


@contextmanager
def served(app: ASGIApp) -> Iterator[str]:
    """The address of `app` while it serves."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        # From here on a connection waits for the server instead of being refused.
        listener.listen()
        config = uvicorn.Config(app, lifespan="off", ws="none", log_config=None, access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(STOP_SECONDS)
