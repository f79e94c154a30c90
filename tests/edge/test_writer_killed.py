"""kill -9: an acknowledged row that is gone afterwards would be usage that nobody pays for."""

import random
import subprocess
import sys
from pathlib import Path

from app.edge import sqlite
from tests.edge.conftest import names

KILLS = 20
ACKNOWLEDGED_AT_LEAST = 50


def test_every_acknowledged_row_survives_kill_minus_nine(tmp_path: Path) -> None:
    path = tmp_path / "core.db"
    acknowledged: set[str] = set()
    for turn in range(KILLS):
        lines = run_and_kill(path, f"turn {turn}", ACKNOWLEDGED_AT_LEAST + random.randrange(200))
        assert len(lines) >= ACKNOWLEDGED_AT_LEAST
        acknowledged |= lines
        assert acknowledged <= names(path)
    raw = sqlite.connect(path)
    try:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        raw.close()


def run_and_kill(path: Path, prefix: str, after: int) -> set[str]:
    """Kill the writing process when it has acknowledged `after` rows; all that it acknowledged."""
    program = [sys.executable, "-m", "tests.edge.acknowledging", str(path), prefix]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(after)]
        process.kill()
        lines += process.stdout.readlines()
    return {line.decode().strip() for line in lines if line.endswith(b"\n")}
