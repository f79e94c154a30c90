"""The cast of the machine room: a database with one table of things, and a server of a few endpoints."""

import asyncio
import io
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from app.edge import sqlite
from app.edge.cors import Cors
from app.edge.database import Database, Group, Transaction
from app.edge.front import Front
from app.edge.request_log import RequestLog
from app.edge.router import Route, Router
from app.errors import Unprocessable
from tests.conftest import open_database

WAIT_SECONDS = 20.0


class Refused(Unprocessable):
    """What a job of these tests raises when it wants to be undone."""


def add(tx: Transaction, name: str, weight: int = 0) -> str:
    """Insert one thing of `weight` bytes."""
    tx.execute("INSERT INTO things (name, load) VALUES (?, zeroblob(?))", name, weight)
    return name


def add_then_refuse(tx: Transaction, name: str) -> None:
    add(tx, name)
    raise Refused("No")


def names(path: Path) -> set[str]:
    """The things that another connection sees: what is committed."""
    raw = sqlite.connect(path, read_only=True)
    try:
        return {row[0] for row in raw.execute("SELECT name FROM things")}
    finally:
        raw.close()


class Gate:
    """Holds the writer in a job until it is opened, so that what is submitted meanwhile gathers."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self._open = threading.Event()

    def hold(self, tx: Transaction) -> None:
        self.entered.set()
        assert self._open.wait(WAIT_SECONDS)

    def open(self) -> None:
        self._open.set()


@asynccontextmanager
async def held(db: Database) -> AsyncIterator[None]:
    """The writer is busy inside the block and free after it. The job that holds it may be refused meanwhile."""
    gate = Gate()
    holding = asyncio.ensure_future(db.write(gate.hold))
    assert await asyncio.to_thread(gate.entered.wait, WAIT_SECONDS)
    try:
        yield
    finally:
        gate.open()
        await asyncio.gather(holding, return_exceptions=True)


Job = tuple[Callable[..., Any], *tuple[Any, ...]]


async def together(db: Database, jobs: Sequence[Job]) -> list[Any]:
    """Run jobs as one group; their values, or what they raised."""
    async with held(db):
        tasks = [asyncio.ensure_future(db.write(*job)) for job in jobs]
        await asyncio.sleep(0)
    return await asyncio.gather(*tasks, return_exceptions=True)


async def tell(process: "subprocess.Popen[str]", line: str = "") -> str:
    """Send the other process a line; the line that it says next."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
    return (await asyncio.to_thread(process.stdout.readline)).strip()


@pytest.fixture
def beside() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts a Python program in a process of its own; all are ended after the test."""
    started = []

    def start(program: str, *arguments: object) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@asynccontextmanager
async def opened(path: Path, committed: Callable[[Group], None] = lambda group: None) -> AsyncIterator[Database]:
    """A core database with the table of things."""
    async with open_database(path, committed=committed) as database:
        await database.write(_make_things)
        yield database


def _make_things(tx: Transaction) -> None:
    tx.execute("CREATE TABLE IF NOT EXISTS things (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, load BLOB)")


@pytest.fixture
def groups() -> list[Group]:
    """What the writer has committed, filled by `things`."""
    return []


@pytest.fixture
async def things(tmp_path: Path, groups: list[Group]) -> AsyncIterator[Database]:
    async with opened(tmp_path / "core.db", groups.append) as database:
        groups.clear()
        yield database


class Site:
    """A real server on loopback with the front, and what it logs and measures."""

    def __init__(self, routes: Sequence[Route], state: dict[str, Any], origins: Sequence[str] = ()) -> None:
        self.log = io.StringIO()
        self.requests = RequestLog(enabled=True, out=self.log)
        self.observed: list[tuple[str | None, str, int]] = []
        self.front = Front(Router(routes), Cors(origins), self.requests, self._observe)
        self._state = state
        self.server: uvicorn.Server
        self.port = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope["state"] = self._state
        await self.front(scope, receive, send)

    def _observe(self, route: str | None, method: str, status: int, seconds: float) -> None:
        self.observed.append((route, method, status))


Serving = Callable[..., AbstractAsyncContextManager[tuple[httpx.AsyncClient, Site]]]


@asynccontextmanager
async def site(
    routes: Sequence[Route], state: dict[str, Any] | None = None, origins: Sequence[str] = (), **config: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, Site]]:
    """Serve `routes` on a socket of loopback, with uvicorn's `config`; a client of it, and the site."""
    made = Site(routes, state or {}, origins)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        made.port = listener.getsockname()[1]
        usual = {"lifespan": "off", "ws": "none", "log_config": None, "access_log": False}
        made.server = server = uvicorn.Server(uvicorn.Config(made, **(usual | config)))
        running = asyncio.create_task(server.serve([listener]))
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{made.port}", trust_env=False) as client:
                yield client, made
        finally:
            server.should_exit = True
            await running


def is_root() -> bool:
    return os.geteuid() == 0
