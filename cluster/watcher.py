"""The watcher: a process that outlives the command, ends what that has started, and removes what they have written.

It waits at a pipe whose other end the command alone holds, so it learns of any end of it, kill -9 among them. What the
command has started is known by a mark in its environment, which every child and its children inherit.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MARK = "LITEHOUSE_CLUSTER"
AGAIN_SECONDS = 0.02
# Who does not end by then waits for a disk, and ends after that.
END_SECONDS = 10.0


@contextmanager
def watched() -> Iterator[Path]:
    """A new folder. When this process ends, so does everything that it starts from now on, and the folder goes."""
    folder = Path(tempfile.mkdtemp(prefix="litehouse-cluster-"))
    words = [sys.executable, "-m", "cluster.watcher", str(folder)]
    watcher = subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True)
    os.environ[MARK] = str(folder)
    try:
        yield folder
    finally:
        del os.environ[MARK]
        watcher.communicate()


def list_marked(folder: Path) -> list[int]:
    """The processes that were started for `folder`."""
    mark = os.fsencode(f"{MARK}={folder}")
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def unmount(folder: Path) -> None:
    """Take away what is mounted below `folder`, also where nobody answers for it any more."""
    points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for point in points:
        if Path(point).is_relative_to(folder):
            subprocess.run(["fusermount3", "-u", "-z", point], capture_output=True, check=False)


def _end_all(folder: Path) -> None:
    until = time.monotonic() + END_SECONDS
    while (left := list_marked(folder)) and time.monotonic() < until:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # Who waits for a file system that is gone cannot end before it is unmounted.
        unmount(folder)
        time.sleep(AGAIN_SECONDS)
    unmount(folder)


def main() -> None:
    folder = Path(sys.argv[1])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    _end_all(folder)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
