"""The README's commands, run as they are written, in a copy of the tree that nothing was prepared for."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import listens, until

ROOT = Path(__file__).parent.parent
PORT = 8787
SETUP_SECONDS = 300
COMMAND_SECONDS = 60
NOT_COPIED = (".git", ".venv", "data", "node_modules", "__pycache__", "*.egg-info", ".*_cache", ".hypothesis")

BLOCKS = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The tree as a new user has it, with `scripts/serve` running in it."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", PORT)) == 0:
            pytest.fail(f"Something listens on {PORT}, where the README's commands expect a new server")
    copy = tmp_path_factory.mktemp("new") / "litehouse"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*NOT_COPIED))
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("CLERK_", "VIRTUAL_ENV"))}
    command = BLOCKS[0].splitlines()[0].partition("#")[0].split()
    with (copy / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=copy, env=environ, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_until_it_answers(process, copy / "serve.log")
        yield copy
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(COMMAND_SECONDS)


def _wait_until_it_answers(process: "subprocess.Popen[bytes]", log: Path) -> None:
    until(lambda: listens(PORT) or process.poll() is not None, SETUP_SECONDS, log.read_text)
    assert process.poll() is None, f"scripts/serve did not come to serve:\n{log.read_text()}"


def run(tree: Path, block: str) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block], cwd=tree, capture_output=True, text=True, timeout=COMMAND_SECONDS
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_two_commands_are_the_first_block() -> None:
    words = [line.partition("#")[0].strip() for line in BLOCKS[0].splitlines()]
    assert words == ["scripts/serve", "scripts/test"]


def test_the_first_real_use_ends_in_an_exact_quota(tree: Path) -> None:
    answers = [json.loads(line) for line in re.findall(r"\{.*?\}(?=\{\"|\s*$)", run(tree, BLOCKS[1]), re.DOTALL)]
    ingested, held, settled, quota, history = answers
    assert ingested["accepted"] == 1
    assert held["granted"] == 5_000
    assert settled == {"id": "call-1", "settled": 3_100, "overshoot": 0}
    assert (quota["used"], quota["reserved"]) == (1_200 + 3_100, 0)
    assert [row["totalTokens"] for row in history["history"]] == [4_300]


def test_the_operators_commands_work_beside_the_server(tree: Path) -> None:
    said = run(tree, BLOCKS[2])
    assert "zero difference" in said
    assert "starter" in said


def test_the_first_use_of_a_live_instance_ends_in_its_history(tree: Path) -> None:
    answers = [json.loads(line) for line in re.findall(r"\{.*?\}(?=\{\"|\s*$)", run(tree, BLOCKS[3]), re.DOTALL)]
    entry, history = answers
    assert (entry["key"], entry["value"]) == ("greeting", "hello")
    assert [(line["op"], line["key"]) for line in history["history"]] == [("set", "greeting")]


def test_every_place_that_the_map_names_is_there() -> None:
    named = re.findall(r"^\| `([\w./]+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(named) > 8
    assert [name for name in named if not (ROOT / name).exists()] == []
    linked = re.findall(r"\]\(([\w./]+)\)", (ROOT / "README.md").read_text())
    assert [name for name in linked if not (ROOT / name).exists()] == []
