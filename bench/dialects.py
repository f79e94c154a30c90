"""Dialects: how a client asks each of the hubs for the same change, and what it has to say besides."""

from typing import NamedTuple

# Every value is a number that never repeats, filled up to as many characters as usual notes have.
VALUE_CHARACTERS = 100
NUMBER_DIGITS = 12
FILLER = "x" * (VALUE_CHARACTERS - NUMBER_DIGITS)
SET = '"key":"key-%02d","value":"%012d' + FILLER + '"}'


class Dialect(NamedTuple):
    """`change` is a set's text, with the numbers of its key and its value to fill in.

    `replies` are texts that are answered, by their first byte. All hubs say `"sync"` when a client has come in,
    and `"key_updated"` with the value for each change.
    """

    name: str
    target: str
    change: str
    replies: tuple[tuple[bytes, bytes], ...] = ()


def litehouse(instance_id: str, token: str) -> Dialect:
    """With the credential in the URL, as the SDKs send it."""
    return Dialect("litehouse", f"/sync/{instance_id}?apiKey={token}", '{"type":"set",' + SET)


# Engine.IO 4 over a WebSocket: "0" is answered with Socket.IO's "40", a ping "2" with "3".
SOCKET_IO = Dialect(
    "socket.io",
    "/socket.io/?EIO=4&transport=websocket",
    '42["set",{' + SET + "]",
    replies=((b"0", b"40"), (b"2", b"3")),
)
WS = Dialect("ws", "/", '{"type":"set",' + SET)
