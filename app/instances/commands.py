"""The commands of instances: where they live."""

import asyncio
from typing import TypeVar

import click

from app.edge import console, desk
from app.edge.console import Console, Record
from app.edge.homes import Machine
from app.edge.peers import Peers
from app.errors import AppError
from app.instances.moves import LOSE, MOVE, MOVE_SECONDS
from app.settings import read_place

T = TypeVar("T")

COMMAND = "command"


@click.group("instances")
def instances_group() -> None:
    """Where instances live."""


@instances_group.command("move")
@click.argument("instance_id", metavar="[ID]", required=False)
@click.option("--to", "region", metavar="REGION", help="The region that it shall live in.")
@click.option("--lost", metavar="MACHINE", help="This machine will not come back: give away what lives on it.")
@console.options
def move(out: Console, instance_id: str | None, region: str | None, lost: str | None) -> None:
    """Move an instance to another region, or give away all that lives on a machine that is lost.

    The running primary is asked, at its peer port.
    """
    if lost is not None and instance_id is None and region is None:
        _ask(LOSE, type(None), lost)
        out.say({"lost": lost}, f"What lives on {lost} goes to whoever is asked for it next.")
    elif instance_id is not None and region is not None and lost is None:
        machine = _ask(MOVE, Machine, instance_id, region)
        said: Record = {"instance": instance_id, "machine": machine.machine, "region": machine.region}
        out.say(said, f"{instance_id} lives on {machine.machine} in {machine.region}.")
    else:
        raise click.UsageError("Give either ID and --to REGION, or --lost MACHINE.")


def _ask(path: str, kind: type[T], *said: object) -> T:
    try:
        return asyncio.run(_ask_primary(path, kind, *said))
    except AppError as error:
        raise click.ClickException(f"{error.message}.") from error


async def _ask_primary(path: str, kind: type[T], *said: object) -> T:
    regions = read_place()
    if not regions.clustered:
        raise click.ClickException("This machine is alone: REPLICATION and PEERS are not set.")
    peers = Peers(regions, COMMAND)
    try:
        return await desk.ask(peers, peers.primary, path, kind, *said, seconds=MOVE_SECONDS)
    finally:
        await peers.close()
