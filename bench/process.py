"""A server process: started, timed until its first answer, ended."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from app.cli import BACKLOG_CONNECTIONS, CONNECTIONS, KEEP_ALIVE_SECONDS
from cluster.ports import free_port

START_SECONDS = 20.0
STOP_SECONDS = 20.0
ANSWER_SECONDS = 10.0
RETRY_SECONDS = 0.001
SETTLED_SECONDS = 1.0
SETTLE_SECONDS = 5.0
LOOK_SECONDS = 0.1
# Of what a server said before it ended, so much is shown.
SAID_CHARACTERS = 500

# In /proc/PID/stat, counted behind the name: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
USER_TICKS, KERNEL_TICKS = 11, 12

LITEHOUSE = str(Path(sys.executable).with_name("litehouse"))
FIRST_REQUEST = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


class Refused(Exception):
    """The server under measurement did not start, or answered otherwise than the figure needs."""


class ServerProcess:
    """One process on one free port of loopback; a context manager that ends what it started. It may start again."""

    def __init__(self, words: list[str], log: Path, **environ: str) -> None:
        self.port = free_port()
        self._words = [word.replace("{port}", str(self.port)) for word in words]
        self._log = log
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        self.environ = inherited | environ
        self._process: subprocess.Popen[bytes] | None = None
        self.seconds_to_first_answer = 0.0

    def __enter__(self) -> "ServerProcess":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def start(self) -> None:
        begun = time.perf_counter()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._words, env=self.environ, stdout=log, stderr=log)
        try:
            self._wait_for_first_answer(begun + START_SECONDS)
        except BaseException:
            self.end()
            raise
        self.seconds_to_first_answer = time.perf_counter() - begun

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def ask(self, request: bytes) -> int:
        """Send one request on a connection of its own; the status of its answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=ANSWER_SECONDS) as connection:
            connection.sendall(request)
            answer = connection.recv(65_536)
        return int(answer[9:12] or 0)

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.pid)

    def idle_bytes(self) -> int:
        """Resident memory once it has not moved for SETTLED_SECONDS."""
        until = time.monotonic() + SETTLE_SECONDS
        held, since = self._resident(), time.monotonic()
        while time.monotonic() < until and time.monotonic() - since < SETTLED_SECONDS:
            time.sleep(LOOK_SECONDS)
            now = self._resident()
            if now != held:
                held, since = now, time.monotonic()
        return held

    def kill(self) -> None:
        """With -9, and the programs that it runs too: what is left of a machine that is lost."""
        assert self._process is not None
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        for pid in (self.pid, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def tell_to_end(self) -> None:
        """And do not wait for that."""
        assert self._process is not None
        self._process.terminate()

    def end(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _resident(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        return int(found[1]) << 10 if found else 0

    def _wait_for_first_answer(self, until: float) -> None:
        while time.perf_counter() < until and self._process is not None and self._process.poll() is None:
            try:
                if self.ask(FIRST_REQUEST):
                    return
            except OSError:
                time.sleep(RETRY_SECONDS)
        raise Refused(f"{' '.join(self._words)} did not start: {self._log.read_text()[-SAID_CHARACTERS:]}")


def cpu_seconds(pid: int) -> float:
    """What all threads of a process have spent on a processor so far, in the program and in the kernel for it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[USER_TICKS]) + int(fields[KERNEL_TICKS])) / os.sysconf("SC_CLK_TCK")


def litehouse(data: Path, **environ: str) -> ServerProcess:
    """`litehouse serve`, as an operator starts it."""
    data.mkdir(parents=True, exist_ok=True)
    words = [LITEHOUSE, "serve", "--port", "{port}", "--data", str(data)]
    return ServerProcess(words, data / "server.log", **environ)


def starlette(app: str, log: Path, **environ: str) -> ServerProcess:
    """A Starlette app under uvicorn with the options of `litehouse serve`."""
    options = (
        "--port {port} --loop uvloop --http httptools --ws none --lifespan on --log-level warning --no-access-log "
        f"--no-proxy-headers --no-server-header --no-date-header --backlog {BACKLOG_CONNECTIONS} "
        f"--limit-concurrency {CONNECTIONS} --timeout-keep-alive {KEEP_ALIVE_SECONDS}"
    )
    return ServerProcess([sys.executable, "-m", "uvicorn", app, *options.split()], log, **environ)


def canned(log: Path) -> ServerProcess:
    return ServerProcess([sys.executable, "-m", "bench.canned", "{port}"], log)
