"""scripts/cluster: what it prints works as printed, what is killed comes back, and however it ends, nothing is left."""

import hashlib
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

from cluster.engines import why_not_litefs
from cluster.watcher import MARK
from tests.cluster.cast import ENGINE_NAMES
from tests.conftest import STOP_SECONDS
from tests.waiting import until

ROOT = Path(__file__).parent.parent.parent
SAID_SECONDS = 60.0
# Three machines, and for each what brings the core to it.
PROCESSES = 6

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree as scripts/setup leaves it, set up with what these tests run in."""
    root = tmp_path_factory.mktemp("tree")
    for name in ("app", "cluster", "migrations"):
        (root / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "scripts", root / "scripts")
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, root / name)
    made, environment = Path(sys.prefix), root / ".venv"
    environment.mkdir()
    for name in ("bin", "lib"):
        (environment / name).symlink_to(made / name)
    shutil.copy(made / "pyvenv.cfg", environment / "pyvenv.cfg")
    told = subprocess.run([environment / "bin/python", "-VV"], capture_output=True, check=True).stdout
    listed = (root / "requirements.lock").read_bytes() + (root / "pyproject.toml").read_bytes()
    stamp = hashlib.sha256(f"{root}\n".encode() + told + listed).hexdigest()
    (environment / "installed-requirements.lock").write_text(f"{stamp}\n")
    return root


class Shown:
    """The command, and what it has printed so far."""

    def __init__(self, tree: Path, engine: str, temporary: Path) -> None:
        self.temporary = temporary
        self.process = subprocess.Popen(
            [tree / "scripts/cluster", "--engine", engine, "--delay", "5"],
            env={"PATH": "/usr/bin:/bin:/usr/sbin:/usr/local/bin", "TMPDIR": str(temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said = ""
        self._hearing = threading.Thread(target=self._hear)
        self._hearing.start()

    def _hear(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as said:
            for line in said:
                self.said += line

    def until_said(self, text: str) -> None:
        until(lambda: text in self.said or self.process.poll() is not None, SAID_SECONDS)
        assert text in self.said, self.said

    def commands(self) -> list[str]:
        """The lines that are printed to be tried, in their order."""
        return re.findall(r"^  ((?:curl|kill|/).*)$", self.said, re.M)

    def started(self) -> list[int]:
        """The processes that the command has started, and those that they have."""
        mark = f"{MARK}={self.temporary}/".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != self.process.pid and mark in environment_of(entry):
                found.append(int(entry.name))
        return found

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        code = self.process.wait(3 * STOP_SECONDS)
        self._hearing.join(STOP_SECONDS)
        return code

    def nothing_is_left(self) -> bool:
        mounted = str(self.temporary) in Path("/proc/mounts").read_text()
        return not (self.started() or mounted or list(self.temporary.iterdir()))


def environment_of(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:
        return b""


@contextmanager
def shown(tree: Path, engine: str, temporary: Path) -> Iterator[Shown]:
    made = Shown(tree, engine, temporary)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.end(signal.SIGINT)


def run(command: str) -> str:
    """What a printed line says, run as printed and anywhere."""
    done = subprocess.run(["bash", "-c", command], cwd="/", capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Typed:
    """A printed line that goes on: somebody watches it until they leave it."""

    def __init__(self, command: str, log: Path) -> None:
        self._log = log
        with log.open("wb") as said:
            self._process = subprocess.Popen(["bash", "-c", command], cwd="/", stdin=subprocess.PIPE, stdout=said)

    def until_said(self, text: str) -> None:
        until(lambda: text in self._log.read_text() or self._process.poll() is not None)
        assert text in self._log.read_text(), self._log.read_text()

    def leave(self) -> None:
        self._process.communicate(timeout=STOP_SECONDS)


@pytest.mark.parametrize("engine", ENGINE_NAMES)
def test_every_line_that_it_prints_works_as_printed_and_ctrl_c_leaves_nothing(
    engine: str, tree: Path, tmp_path: Path
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with shown(tree, engine, temporary) as laptop:
        laptop.until_said("Ctrl-C ends")
        assert laptop.said.startswith("LiteFS (" if engine == "litefs" else "A stand-in for LiteFS")
        machines = re.findall(r"^  (\w+)  (http://\S+)  process (\d+)", laptop.said, re.M)
        assert [region for region, _, _ in machines] == ["fra", "ams", "nrt"]
        post, read, health, listen, put, kill = laptop.commands()

        assert "x-txid: " in run(post)
        until(lambda: "garden" in run(read))
        assert json.loads(run(health))["region"] == "nrt"
        page = re.search(r"(\S+/admin)  with the admin token (\w+)", laptop.said)
        assert page is not None
        assert "m-nrt" in run(f"curl -s {page[1]} -H 'X-Admin-Token: {page[2]}'")

        watched = Typed(listen, tmp_path / "first")
        watched.until_said('"type":"sync"')
        assert json.loads(run(put))["value"] == "hi"
        watched.until_said('"type":"key_updated"')
        home = re.search(r"^  ams .* process (\d+)  \(home of the room\)", laptop.said, re.M)
        assert home is not None
        assert kill == f"kill -9 {home[1]}"
        run(kill)
        watched.until_said("Connection closed")
        watched.leave()
        laptop.until_said("m-ams had ended and is back, as process")
        again = Typed(listen, tmp_path / "again")
        again.until_said('"greeting":{"value":"hi"')
        again.leave()

        assert len(laptop.started()) == PROCESSES
        assert laptop.end(signal.SIGINT) == 0, laptop.said
        assert laptop.nothing_is_left()


@pytest.mark.parametrize("engine", ENGINE_NAMES)
def test_a_kill_leaves_nothing_behind(engine: str, tree: Path, tmp_path: Path) -> None:
    """Machines that nobody knows of would hold their ports, and a mount its folder, until somebody looks for them."""
    with shown(tree, engine, tmp_path) as laptop:
        until(lambda: len(laptop.started()) == PROCESSES, SAID_SECONDS)
        assert laptop.end(signal.SIGKILL) == -signal.SIGKILL
        until(laptop.nothing_is_left)


def test_an_engine_that_cannot_run_is_said_so(tmp_path: Path) -> None:
    if why_not_litefs() is None:
        pytest.skip("LiteFS can run here")
    words = [sys.executable, "-m", "cluster", "--engine", "litefs"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "litefs" in done.stderr
