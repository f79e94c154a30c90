"""scripts/cluster: what it prints works as printed, what is killed comes back, and Ctrl-C leaves nothing behind."""

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from cluster.engines import why_not_litefs
from tests.cluster.cast import ENGINE_NAMES, until
from tests.conftest import STOP_SECONDS
from tests.instances.conftest import Peer

ROOT = Path(__file__).parent.parent.parent
SAID_SECONDS = 60.0
# It must be there well before a client has given up.
BACK_SECONDS = 15.0


class Shown:
    """The command, and what it has printed so far."""

    def __init__(self, engine: str, temporary: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cluster", "--engine", engine, "--delay", "5"],
            cwd=ROOT,
            env={"PATH": "/usr/bin:/bin:/usr/sbin:/usr/local/bin", "TMPDIR": str(temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said = ""
        self._hearing = threading.Thread(target=self._hear)
        self._hearing.start()

    def _hear(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as said:
            for line in said:
                self.said += line

    def until_said(self, text: str) -> None:
        until(lambda: text in self.said or self._process.poll() is not None, SAID_SECONDS)
        assert text in self.said, self.said

    def command(self, *parts: str) -> str:
        """The printed line that holds all of `parts`."""
        (line,) = [line.strip() for line in self.said.splitlines() if all(part in line for part in ("  ", *parts))]
        return line

    def run(self, *parts: str) -> str:
        done = subprocess.run(
            ["bash", "-c", self.command(*parts)], cwd=ROOT, capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def end(self) -> int:
        """Ctrl-C."""
        self._process.send_signal(signal.SIGINT)
        code = self._process.wait(3 * STOP_SECONDS)
        self._hearing.join()
        return code


@contextmanager
def shown(engine: str, temporary: Path) -> Iterator[Shown]:
    made = Shown(engine, temporary)
    try:
        made.until_said("Ctrl-C ends")
        yield made
    finally:
        assert made.end() == 0, made.said


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("engine", ENGINE_NAMES)
def test_what_it_prints_works_and_nothing_is_left_behind(engine: str, tmp_path: Path) -> None:
    with shown(engine, tmp_path) as laptop:
        assert laptop.said.startswith("LiteFS (" if engine == "litefs" else "A stand-in for LiteFS")
        machines = re.findall(r"^  (\w+)  (http://\S+)  process (\d+)", laptop.said, re.M)
        assert [region for region, _, _ in machines] == ["fra", "ams", "nrt"]
        assert "x-txid: " in laptop.run("/api/projects", "garden")
        until(lambda: "garden" in laptop.run("curl -s ", "/api/projects"))
        assert json.loads(laptop.run("/api/health"))["region"] == "nrt"

        address = re.search(r"ws://\S+", laptop.command("-m websockets"))
        assert address is not None
        with connect(address[0], proxy=None, compression=None, close_timeout=2) as socket:
            peer = Peer(socket)
            peer.greeting()
            laptop.run("PUT", "greeting")
            assert peer.until("key_updated")[-1]["value"] == "hi"
            laptop.run("kill -9")
            with pytest.raises(ConnectionClosed):
                while True:
                    peer.hear()
        laptop.until_said("is back, as process")
        with connect(address[0], proxy=None, compression=None, close_timeout=2, open_timeout=BACK_SECONDS) as socket:
            assert Peer(socket).greeting()[1]["data"]["greeting"]["value"] == "hi"
        processes = [Path("/proc", pid) for _, _, pid in machines] + [
            Path("/proc", pid) for pid in re.findall(r"is back, as process (\d+)", laptop.said)
        ]
    assert [process for process in processes if process.exists()] == []
    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in Path("/proc/mounts").read_text()


def test_an_engine_that_cannot_run_is_said_so(tmp_path: Path) -> None:
    if why_not_litefs() is None:
        pytest.skip("LiteFS can run here")
    words = [sys.executable, "-m", "cluster", "--engine", "litefs"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "litefs" in done.stderr
