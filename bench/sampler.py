"""The sampler: `litehouse serve` in this process, the stacks of its threads looked at a thousand times a second.

A signal's handler runs between two bytecodes of the main thread, which is the loop's: time inside C (SQLite,
JSON, a system call) is seen at the Python line that called it, and nothing is slowed but by the looking.
`python -m bench.sampler OUT litehouse's words`: SIGUSR1 begins to look, SIGUSR2 ends it and writes OUT.
"""

import json
import signal
import sys
import sysconfig
import threading
import time
from collections import defaultdict
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

LOOK_SECONDS = 0.001
DEEPEST_FRAMES = 100
THREADS = {"MainThread": "loop", "writer": "writer"}
# Of the threads of instances' files only those are there that a file in use is on.
STORE = "store-"


class Watched:
    """One thread: seconds of the clock and of its processor by the place that ran, and by all that led there."""

    def __init__(self, ident: int) -> None:
        self._ident = ident
        self._cpu_clock = time.pthread_getcpuclockid(ident)
        self._own: dict[CodeType, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._whole: dict[CodeType, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._at = self._now()

    def look(self, frame: FrameType | None) -> None:
        """Give the time since the last look to where the thread is now."""
        now = self._now()
        spent = [after - before for before, after in zip(self._at, now, strict=True)]
        self._at = now
        frame = frame or sys._current_frames().get(self._ident)
        if frame is None:
            return
        _add(self._own[frame.f_code], spent)
        for code in _callers(frame):
            _add(self._whole[code], spent)

    def seen(self) -> dict[str, list[tuple[str, str, float, float]]]:
        return {"own": _named(self._own), "whole": _named(self._whole)}

    def _now(self) -> tuple[float, float]:
        return time.perf_counter(), time.clock_gettime(self._cpu_clock)


class Sampler:
    def __init__(self, out: Path) -> None:
        self._out = out
        self._watched: dict[str, Watched] = {}

    def install(self) -> None:
        signal.signal(signal.SIGALRM, self._look)
        signal.signal(signal.SIGUSR1, self._begin)
        signal.signal(signal.SIGUSR2, self._end)

    def _begin(self, *_: Any) -> None:
        for thread in threading.enumerate():
            name = thread.name if thread.name.startswith(STORE) else THREADS.get(thread.name)
            if name is not None and thread.ident is not None:
                self._watched[name] = Watched(thread.ident)
        signal.setitimer(signal.ITIMER_REAL, LOOK_SECONDS, LOOK_SECONDS)

    def _look(self, _: int, frame: FrameType | None) -> None:
        for name, watched in self._watched.items():
            watched.look(frame if name == "loop" else None)

    def _end(self, *_: Any) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        part = self._out.with_suffix(".part")
        part.write_text(json.dumps({name: watched.seen() for name, watched in self._watched.items()}))
        part.rename(self._out)


def _callers(frame: FrameType | None) -> set[CodeType]:
    """The function that ran and those that led to it, each once, however often it calls itself."""
    codes: set[CodeType] = set()
    for _ in range(DEEPEST_FRAMES):
        if frame is None:
            break
        codes.add(frame.f_code)
        frame = frame.f_back
    return codes


def _add(total: list[float], spent: list[float]) -> None:
    total[0] += spent[0]
    total[1] += spent[1]


def _named(places: dict[CodeType, list[float]]) -> list[tuple[str, str, float, float]]:
    """`(file, function, seconds, processor seconds)`."""
    return [(_file(code.co_filename), code.co_qualname, *spent) for code, spent in places.items()]  # type: ignore[misc]


def _file(path: str) -> str:
    path = path.removeprefix(f"{Path.cwd()}/")
    return path.rpartition("site-packages/")[2].removeprefix(f"{sysconfig.get_path('stdlib')}/")


if __name__ == "__main__":
    Sampler(Path(sys.argv[1])).install()
    from app.cli import main

    main(sys.argv[2:])
