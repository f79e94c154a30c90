"""A server with a backup: who writes to it, what was acknowledged, and how it and its Litestream are killed."""

import asyncio
import itertools
import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from app.edge.control import Control
from app.errors import Unavailable
from tests.conftest import Server, rows_of
from tests.waiting import is_alive, until

DEMO_USER = "user_2demoAdaLovelace1815London"
_numbers = itertools.count(1)

Json = dict[str, Any]


class Backed:
    """`acknowledged` are the events whose answer was 200, `keys` what the last acknowledged PUT left in the room."""

    def __init__(self, folder: Path, url: str, durable: str = "off", **environ: str) -> None:
        self.data = folder / "data"
        self.server = Server(self.data, LITESTREAM_REPLICA_URL=url, DURABLE_ACK=durable, **environ)
        self.socket = self.data / "litestream.sock"
        self.acknowledged: list[str] = []
        self.keys: dict[str, int] = {}
        self.project, self.room = "", ""
        self.key = ""

    def start(self) -> None:
        self.server.start()
        self.key = self.key or (self.data / "demo-key").read_text().strip()

    def close(self) -> None:
        self.server.close()

    def kill(self) -> None:
        """The server and its Litestream, both at once and without a word."""
        pid = self.litestream()
        self.server.kill()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        until(lambda: not is_alive(pid))

    def lose_disk(self) -> None:
        shutil.rmtree(self.data)
        self.data.mkdir()

    def litestream(self) -> int:
        """Its process id."""
        found: list[int] = []

        async def ask() -> None:
            control = Control(self.socket)
            with suppress(Unavailable):
                found.append((await control.info()).pid)
            await control.close()

        def answers() -> bool:
            asyncio.run(ask())
            return bool(found)

        until(answers)
        return found[0]

    # -- who writes -------------------------------------------------------------------------------------

    def post_event(self, client: httpx.Client, name: str | None = None) -> httpx.Response:
        """One usage event of three tokens, with an id of its own unless one is given."""
        name = name or f"event-{next(_numbers)}"
        event = {"clerkId": DEMO_USER, "responseId": name, "model": "m", "provider": "p"}
        tokens = {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3}
        answer = client.post("/api/usage/events", json=event | tokens, headers={"X-API-Key": self.key})
        if answer.status_code == 200:
            assert answer.json()["rejected"] == 0, answer.text
            self.acknowledged.append(name)
        return answer

    def make_room(self, client: httpx.Client) -> str:
        project = client.post("/api/projects", json={"name": "garden"})
        assert project.status_code in (200, 201), project.text
        made = client.post(f"/api/projects/{project.json()['id']}/instances", json={"name": "draft"})
        assert made.status_code in (200, 201), made.text
        self.project, self.room = project.json()["id"], made.json()["id"]
        return self.room

    def put_key(self, client: httpx.Client, key: str, value: int) -> httpx.Response:
        answer = client.put(f"/api/instances/{self.room}/keys/{key}", json={"value": value})
        if answer.status_code in (200, 201):
            self.keys[key] = value
        return answer

    # -- what is there ----------------------------------------------------------------------------------

    def events(self) -> list[str]:
        """The events in the core, in order."""
        return [row[0] for row in rows_of(self.data / "core.db", "SELECT response_id FROM usage_logs ORDER BY id")]

    def restore(self, *words: str) -> subprocess.CompletedProcess[str]:
        done = self.server.command("backup", "restore", *words)
        assert done.returncode == 0, done.stderr
        return done
