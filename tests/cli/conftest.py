"""What the tests of commands share: how a command's JSON is read, and how long a server may take to follow."""

import json
from collections.abc import Callable
from typing import Any

from tests.conftest import Server
from tests.waiting import until

FOLLOWED_SECONDS = 0.3


def run(server: Server, *words: str) -> Any:
    """A command's JSON; it must succeed and say nothing else."""
    done = server.command(*words, "--json")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return json.loads(done.stdout)


def refusal(server: Server, *words: str) -> str:
    """The one line of a command that fails."""
    done = server.command(*words)
    assert done.returncode == 1, done.stdout
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    return done.stderr.strip().removeprefix("Error: ")


def follows(holds: Callable[[], bool]) -> bool:
    """Whether the server comes to see a change within the time that is promised."""
    return until(holds, FOLLOWED_SECONDS)


def printed(server: Server, words: str) -> str:
    """What the server has printed, once `words` are in it."""
    until(lambda: words in server.log(), told=server.log)
    return server.log()
