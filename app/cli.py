"""The litehouse command: the contents page of what operators can do, and `serve`."""

import asyncio
import dataclasses
import importlib
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

import app
from app.edge import console, folder, replication
from app.edge.clock import now_ms
from app.edge.database import Database
from app.edge.mount import Mount
from app.identity import demo
from app.identity.demo import Demo
from app.settings import DEVELOPMENT, Settings, read_settings

# Requests that were accepted are finished within this time; no request waits longer than 8 s in all.
SHUTDOWN_SECONDS = 10
KEEP_ALIVE_SECONDS = 5
BACKLOG_CONNECTIONS = 2_048
CONNECTIONS = 10_000
# Beside the connections: the databases, what we ask others, what Python itself holds.
OTHER_DESCRIPTORS = 256

COMMANDS = {
    "migrate": "app.edge.commands:migrate_command",
    "seed": "app.identity.commands:seed_command",
    "keys": "app.identity.commands:keys_group",
    "users": "app.identity.commands:users_group",
    "usage": "app.usage.commands:usage_group",
    "plans": "app.usage.plan_commands:plans_group",
    "prices": "app.usage.plan_commands:prices_group",
    "origins": "app.edge.commands:origins_group",
    "webhooks": "app.accounts.commands:webhooks_group",
    "verify-usage": "app.usage.commands:verify_usage",
    "import-d1": "app.usage.commands:import_d1",
    "instances": "app.instances.commands:instances_group",
    "backup": "app.ops.backup_commands:backup_group",
    "doctor": "app.ops.commands:doctor_command",
    "sql": "app.ops.commands:sql_command",
}


class Contents(click.Group):
    """Imports a command when it is asked for: `serve` must not wait for what it never runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(cls=Contents)
@click.version_option(app.__version__, prog_name="litehouse")
def main() -> None:
    """The backend of an AI app in one process."""


@main.command()
@click.option("--host", help="The address to listen on.  [default: $HOST or 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65_535), help="0 takes a free one.  [default: $PORT or 8787]")
@click.option("--data", "data_dir", metavar="DIR", help="Where the databases are.  [default: $DATA_DIR or ./data]")
@click.option("--json", "as_json", is_flag=True, help="Say in JSON where the server listens.")
def serve(host: str | None, port: int | None, data_dir: str | None, as_json: bool) -> None:
    """Serve until it is told to stop.

    Settings come from the environment. In development the first start makes users and a key to try it with.
    SIGTERM finishes what was accepted, then ends.
    """
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, lambda *_: sys.exit(0))
    with console.errors_in_one_line():
        settings = read_settings(host=host, port=port, data_dir=data_dir)
        listeners = bind(settings)
        _lock_data(settings)
        settings, made = _prepare(settings)
    run(settings, listeners, made, as_json)


def bind(settings: Settings) -> list[socket.socket]:
    """The ports, asked for before anything else is done: one in use must cost nothing and say so."""
    regions = settings.regions
    peers = [(regions.private_address or settings.host, regions.peer_port)] if regions.clustered else []
    return [_bind_one(host, port) for host, port in [(settings.host, settings.port), *peers]]


def _bind_one(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with _saying_where(host, port):
        listener.bind((host, port))
    return listener


@contextmanager
def _saying_where(host: str, port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise click.ClickException(f"Cannot listen on {host} port {port}: {error.strerror}") from error


def _lock_data(settings: Settings) -> None:
    """Held while this process lives. One Litestream is enough for a folder, so with a backup it is ours alone."""
    path = settings.data_dir / folder.SERVE_LOCK
    if folder.try_lock(path, shared=settings.backup_url is None) is None:
        raise click.ClickException(f"Another server or a restore is at work on {settings.data_dir}.")


def _prepare(settings: Settings) -> tuple[Settings, Demo | None]:
    """Bring the database up to date; in development, what a first start leaves for whoever started it."""
    _, mount = asyncio.run(replication.prepare(replication.of(settings), settings))
    if settings.environment != DEVELOPMENT:
        return settings, None
    if settings.admin_token is None:
        settings = dataclasses.replace(settings, admin_token=folder.keep_admin_token(settings.data_dir))
    return settings, None if mount is Mount.REPLICA else asyncio.run(_seed(settings, mount))


async def _seed(settings: Settings, mount: Mount) -> Demo:
    db = Database(settings.database_path, mount=mount)
    try:
        db.open()
        return await demo.prepare(db, settings.data_dir, now_ms())
    finally:
        await db.close()


def run(settings: Settings, listeners: list[socket.socket], made: Demo | None, as_json: bool) -> None:
    """Serve on the bound `listeners`: the public port, and where there are peers theirs."""
    import uvicorn

    from app.edge import logs
    from app.edge.http_protocol import HttpProtocol
    from app.edge.sockets import Sockets
    from app.edge.websocket import protocol_of
    from app.main import create_app
    from app.ops import welcome

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            # Of two starts that bound the same port only one may listen; the event loop would not tell the other.
            for listener in listeners:
                with _saying_where(*listener.getsockname()[:2]):
                    listener.listen(BACKLOG_CONNECTIONS)
            port: int = listeners[0].getsockname()[1]
            await super().startup(sockets)
            welcome.print_welcome(settings, port, made, as_json)

    logs.configure(settings.log_level)
    _allow_descriptors(CONNECTIONS + OTHER_DESCRIPTORS)
    config = uvicorn.Config(
        create_app(settings),
        log_config=None,
        access_log=False,
        lifespan="on",
        ws=protocol_of(Sockets()),
        loop="uvloop",
        http=HttpProtocol,
        # Whose address a request has is decided in one place, by settings, never by a client's header.
        proxy_headers=False,
        server_header=False,
        date_header=False,
        backlog=BACKLOG_CONNECTIONS,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    # The peer port refuses nobody while this process holds an instance: its listener lives until all is closed.
    held = [listener.dup() for listener in listeners[1:]]
    Server(config).run(listeners)
    for listener in held:
        listener.close()


def _allow_descriptors(wanted: int) -> None:
    """Raise this process's own limit as far as the machine allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


if __name__ == "__main__":
    main()
