"""Ports on loopback for processes that are started a moment later."""

import secrets
import socket
from contextlib import suppress

# Below those that the kernel takes for outgoing connections, which would come in between. Who runs beside others
# that look for some too takes a part of them.
PORTS = range(10_000, 32_000)

_given: set[int] = set()


def free_port() -> int:
    """One that nobody listens on, and that this process has not given before."""
    while True:
        port = PORTS[secrets.randbelow(len(PORTS))]
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port
