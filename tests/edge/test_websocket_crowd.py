"""A crowd: a thousand sockets on a server as it runs in production, and what they cost it."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.edge.framing import CLOSE, FINAL, PING, TEXT
from tests.edge.conftest import WAIT_SECONDS
from tests.edge.wire import head, masked

SOCKETS = 1_000
WARMING = 200
DESCRIPTORS = 4_096
SOCKET_BYTES = 4_096
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
CUT_OFF_SECONDS = 10.0


class Served:
    """The process that serves, and its port."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        self.process = process
        self.port = int(process.stdout.readline())

    def dial(self) -> socket.socket:
        """A socket that has been accepted."""
        made = socket.create_connection(("127.0.0.1", self.port), WAIT_SECONDS)
        made.sendall(head("/echo"))
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += made.recv(1)
        assert answer.startswith(b"HTTP/1.1 101 ")
        return made

    def memory(self) -> int:
        """Bytes that are resident, as soon as they no longer change."""
        before = -1
        while (now := self._resident()) != before:
            before = now
            time.sleep(0.1)
        return now

    def _resident(self) -> int:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE_BYTES


def receive(client: socket.socket) -> bytes:
    """The payload of the next frame that is no ping, which is short."""
    first = FINAL | PING
    while first == FINAL | PING:
        first, length = read_exactly(client, 2)
        assert length < 126
        payload = read_exactly(client, length)
    return payload


def read_exactly(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = client.recv(size - len(data))
        assert piece, "the server hung up"
        data += piece
    return data


@contextmanager
def serving() -> Iterator[Served]:
    process = subprocess.Popen([sys.executable, "-m", "tests.edge.echoing"], stdout=subprocess.PIPE)
    try:
        yield Served(process)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def served() -> Iterator[Served]:
    with serving() as running:
        yield running


@pytest.fixture
def descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, DESCRIPTORS), hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("descriptors")
def test_a_thousand_idle_sockets_cost_at_most_4_kib_each_and_all_hear_one_of_them() -> None:
    with serving() as served, ExitStack() as stack:
        crowd = [stack.enter_context(served.dial()) for _ in range(WARMING)]
        before = served.memory()
        crowd += [stack.enter_context(served.dial()) for _ in range(SOCKETS)]
        each = (served.memory() - before) / SOCKETS
        assert each <= SOCKET_BYTES
        crowd[0].sendall(masked(FINAL | TEXT, b"all of you"))
        assert [receive(client) for client in crowd] == [b"all of you"] * (SOCKETS + WARMING)


def test_a_server_that_is_told_to_stop_closes_its_sockets_and_ends(served: Served) -> None:
    with served.dial() as client:
        served.process.send_signal(signal.SIGTERM)
        assert (receive(client), receive(client)) == (b"going", b"away")
        assert receive(client) == (1012).to_bytes(2, "big") + b"restart"
        client.sendall(masked(FINAL | CLOSE, (1012).to_bytes(2, "big")))
        assert client.recv(1) == b""
        served.process.wait(WAIT_SECONDS)


def test_a_server_ends_although_a_client_does_not_answer_its_close(served: Served) -> None:
    with served.dial():
        served.process.send_signal(signal.SIGTERM)
        served.process.wait(CUT_OFF_SECONDS)


NOISE = st.one_of(
    st.binary(max_size=300),
    st.lists(
        st.builds(
            masked,
            st.one_of(st.sampled_from((0x81, 0x01, 0x80, 0x82, 0x88, 0x89)), st.integers(0, 255)),
            st.binary(max_size=150),
        ),
        min_size=1,
        max_size=6,
    ).map(b"".join),
)


def test_no_noise_disturbs_another_socket(served: Served) -> None:
    with served.dial() as witness:

        @settings(max_examples=150, deadline=None, database=None)
        @given(NOISE)
        def disturb(noise: bytes) -> None:
            with served.dial() as noisy:
                noisy.sendall(noise)
            witness.sendall(masked(FINAL | TEXT, b"still here"))
            assert receive(witness) == b"still here"

        disturb()
    assert served.process.poll() is None
