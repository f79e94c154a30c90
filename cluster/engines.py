"""Two engines that bring the core to the machines of a cluster: LiteFS itself, and a stand-in where it is missing.

Both have one folder, one HTTP port and one process for each machine. The first machine is the primary: the lease is
static and it is the one candidate.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.delay_proxy import DelayProxy
from cluster.ports import free_port

START_SECONDS = 20.0
STOP_SECONDS = 10.0
DATABASE = "core.db"


def find_litefs() -> str | None:
    """The real program: `LITEFS_BIN`, or what is on the PATH."""
    return os.environ.get("LITEFS_BIN") or shutil.which("litefs")


def why_not_litefs() -> str | None:
    """Why the real program cannot run here, None where it can."""
    if find_litefs() is None:
        return "litefs is neither on the PATH nor named by LITEFS_BIN"
    if not Path("/dev/fuse").exists() or shutil.which("fusermount3") is None:
        return "litefs is here, but FUSE (/dev/fuse and fusermount3) is not"
    if os.geteuid() != 0:
        return "litefs mounts as root only"
    return None


class Process:
    """A program that is always ended, and killed when it does not end."""

    def __init__(self, words: list[str], log: Path, environ: dict[str, str] | None = None) -> None:
        self.log = log
        # In a session of its own: Ctrl-C is for whoever started it, who ends it in the right order.
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                words, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=environ, start_new_session=True
            )

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, number: int) -> None:
        if self.running:
            self._process.send_signal(number)

    def end(self) -> None:
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self._process.wait(STOP_SECONDS)


class Engine:
    """What brings the core to `machines`. `hold` and `delay` are of what comes from the primary to one of them."""

    name = ""

    def __init__(self, folder: Path, machines: list[str]) -> None:
        self.folder = folder
        self.machines = machines
        self._ports = {machine: free_port() for machine in machines}
        self._processes: dict[str, Process] = {}
        # The app hears of events over a line, so that a test can cut it off.
        self._news: dict[str, DelayProxy] = {}

    def database(self, machine: str) -> Path:
        raise NotImplementedError

    def url(self, machine: str) -> str:
        """Where the app of this machine asks."""
        if machine not in self._news:
            self._news[machine] = DelayProxy(self._ports[machine])
        return f"http://127.0.0.1:{self._news[machine].port}"

    def start(self, machine: str) -> None:
        log = self.folder / machine / f"{self.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        process = self._processes[machine] = self._launch(machine, log)
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready(machine):
            if not process.running or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not start on {machine}:\n{log.read_text()}")
            time.sleep(0.01)

    def stop(self, machine: str) -> None:
        self._processes.pop(machine).end()

    def kill(self, machine: str) -> None:
        self._processes.pop(machine).kill()

    def runs(self, machine: str) -> bool:
        return machine in self._processes and self._processes[machine].running

    def log(self, machine: str) -> str:
        return (self.folder / machine / f"{self.name}.log").read_text()

    def drop_events(self, machine: str) -> None:
        """Cut the app's streams off; it may come again."""
        self._news[machine].drop()

    def refuse_events(self, machine: str) -> None:
        """Cut the app off until `accept_events`."""
        self._news[machine].cut()

    def accept_events(self, machine: str) -> None:
        self._news[machine].mend()

    def hold(self, machine: str) -> None:
        raise NotImplementedError

    def release(self, machine: str) -> None:
        raise NotImplementedError

    def delay(self, machine: str, seconds: float) -> None:
        raise NotImplementedError

    def close(self) -> None:
        for machine in reversed(list(self._processes)):
            with contextlib.suppress(Exception):
                self.stop(machine)
        for link in self._news.values():
            link.close()

    def _launch(self, machine: str, log: Path) -> Process:
        raise NotImplementedError

    def _is_ready(self, machine: str) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._ports[machine]), timeout=1).close()
        except OSError:
            return False
        return True


class StandIn(Engine):
    """Replicas copy the primary's file from its folder, a process for each of them."""

    name = "standin"

    def database(self, machine: str) -> Path:
        return self.folder / machine / "core" / DATABASE

    def stop(self, machine: str) -> None:
        super().stop(machine)
        self._lose_lag(machine)

    def kill(self, machine: str) -> None:
        super().kill(machine)
        self._lose_lag(machine)

    def hold(self, machine: str) -> None:
        self._tell(machine, held=True)

    def release(self, machine: str) -> None:
        self._tell(machine, held=False)

    def delay(self, machine: str, seconds: float) -> None:
        self._tell(machine, lagMs=1000 * seconds)

    def say_lag(self, machine: str, lag_ms: int | None) -> None:
        """What the file of the lag says, whatever is true; None for the truth."""
        self._tell(machine, saidLagMs=lag_ms)

    def change_role(self, machine: str, *, is_primary: bool) -> None:
        self._post(machine, "/standin/role", isPrimary=is_primary)

    def _launch(self, machine: str, log: Path) -> Process:
        words = [sys.executable, "-m", "cluster.standin", machine, str(self.database(machine).parent)]
        words += [str(self._ports[machine])]
        if machine != self.machines[0]:
            words += ["--source", str(self.database(self.machines[0]).parent)]
        return Process(words, log)

    def _lose_lag(self, machine: str) -> None:
        # A dead mount has no files; a stand-in's folder outlives it.
        (self.database(machine).parent / ".lag").unlink(missing_ok=True)

    def _tell(self, machine: str, **wanted: Any) -> None:
        self._post(machine, "/standin", **wanted)

    def _post(self, machine: str, path: str, **body: Any) -> None:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._ports[machine]}{path}", json.dumps(body).encode(), method="POST"
        )
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10).close()


class LiteFS(Engine):
    """The real program, with FUSE; what comes from the primary to a replica goes over a line."""

    name = "litefs"

    def __init__(self, folder: Path, machines: list[str]) -> None:
        super().__init__(folder, machines)
        self._links = {machine: DelayProxy(self._ports[machines[0]]) for machine in machines[1:]}

    def database(self, machine: str) -> Path:
        return self.mount(machine) / DATABASE

    def mount(self, machine: str) -> Path:
        return self.folder / machine / "mount"

    def stop(self, machine: str) -> None:
        super().stop(machine)
        self._unmount(machine)

    def kill(self, machine: str) -> None:
        """The mount stays, and answers that it is not connected, until `start` or `close`."""
        super().kill(machine)

    def hold(self, machine: str) -> None:
        self._links[machine].pause()

    def release(self, machine: str) -> None:
        self._links[machine].resume()

    def delay(self, machine: str, seconds: float) -> None:
        self._links[machine].delay = seconds

    def pause(self, machine: str) -> None:
        """Stop the program itself: whatever touches the mount waits."""
        self._processes[machine].send(signal.SIGSTOP)

    def resume(self, machine: str) -> None:
        self._processes[machine].send(signal.SIGCONT)

    def close(self) -> None:
        super().close()
        for machine in self.machines:
            self._unmount(machine)
        for link in self._links.values():
            link.close()

    def _launch(self, machine: str, log: Path) -> Process:
        self._unmount(machine)
        return Process([str(find_litefs()), "mount", "-config", str(self._configure(machine))], log)

    def _configure(self, machine: str) -> Path:
        is_primary = machine == self.machines[0]
        ask = self._ports[machine] if is_primary else self._links[machine].port
        self.mount(machine).mkdir(parents=True, exist_ok=True)
        config = self.folder / machine / "litefs.yml"
        settings = {
            "fuse": {"dir": str(self.mount(machine))},
            "data": {"dir": str(self.folder / machine / "litefs")},
            "http": {"addr": f"127.0.0.1:{self._ports[machine]}"},
            "lease": {
                "type": "static",
                "advertise-url": f"http://127.0.0.1:{ask}",
                "hostname": machine,
                "candidate": is_primary,
            },
        }
        # JSON is YAML.
        config.write_text(json.dumps(settings))
        return config

    def _is_ready(self, machine: str) -> bool:
        return os.path.ismount(self.mount(machine)) and super()._is_ready(machine)

    def _unmount(self, machine: str) -> None:
        subprocess.run(["fusermount3", "-u", "-z", str(self.mount(machine))], capture_output=True, check=False)


ENGINES: dict[str, Callable[[Path, list[str]], Engine]] = {"standin": StandIn, "litefs": LiteFS}
