"""The cluster's command: scripts/cluster [--engine litefs|standin] [--delay MS]"""

import shlex
import signal
import sys

import click

from cluster.engines import ENGINES, find_litefs, why_not_litefs
from cluster.laptop import Broken, Laptop, Machine, Room
from cluster.machines import AMS, PRIMARY, REGIONS
from cluster.watcher import watched

MILLISECONDS = 1000


@click.command()
@click.option("--engine", type=click.Choice(list(ENGINES)), help="What replicates.  [default: litefs where it can run]")
@click.option("--delay", type=click.IntRange(0, 1_000), default=20, show_default=True, help="Between regions, in ms.")
def main(engine: str | None, delay: int) -> None:
    """Three regions on this computer, until Ctrl-C. What they hold is gone after that."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    missing = why_not_litefs()
    if engine == "litefs" and missing is not None:
        raise click.ClickException(missing)
    kind = engine or ("standin" if missing else "litefs")
    click.echo(_introduce(kind, missing))
    with watched() as folder:
        laptop = Laptop(ENGINES[kind](folder, list(REGIONS)), folder, delay / MILLISECONDS)
        try:
            laptop.start()
            room = laptop.make_room(AMS)
            click.echo(_explain(laptop, room))
            for machine in laptop.watch(room):
                click.echo(f"{machine.name} had ended and is back, as process {laptop.pid(machine)}.")
        except Broken as broken:
            raise click.ClickException(str(broken)) from broken
        except KeyboardInterrupt:
            click.echo("\nEnding all of it.")
        finally:
            # A second Ctrl-C must not leave a mount behind.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            laptop.close()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _introduce(kind: str, missing: str | None) -> str:
    if kind == "litefs":
        return f"LiteFS ({find_litefs()}) replicates the core."
    why = f"LiteFS cannot run here: {missing}" if missing else "as it was asked for"
    return f"A stand-in for LiteFS replicates the core ({why}). It copies files, and is no file system."


def _explain(laptop: Laptop, room: Room) -> str:
    others = [machine for machine in laptop.machines if machine is not room.home]
    third, far = others[0], others[-1]
    json = "-H 'Content-Type: application/json' -d"
    told = [
        f"  {machine.region}  {machine.url}  process {laptop.pid(machine)}{_role(machine, room)}"
        for machine in laptop.machines
    ]
    return "\n".join(
        [
            *told,
            "",
            "Write in one region; X-Txid in the answer says how far the core had come:",
            f'  curl -si {room.home.url}/api/projects {json} \'{{"name":"garden"}}\'',
            "Read in another:",
            f"  curl -s {far.url}/api/projects",
            "See who a machine is and how far behind, and in a browser all of them:",
            f"  curl -s {far.url}/api/health",
            f"  {third.url}/admin  with the admin token {laptop.admin_token}",
            f"Open a socket from the wrong region, for a room that lives in {room.home.region}:",
            f"  {shlex.quote(sys.executable)} -m websockets ws{far.url.removeprefix('http')}/sync/{room.id}",
            "Change a key by a third region, and see it there:",
            f'  curl -s -X PUT {third.url}/api/instances/{room.id}/keys/greeting {json} \'{{"value":"hi"}}\'',
            f"Kill the home of the room, {room.home.name}, watch it come back, and open the socket again:",
            f"  kill -9 {laptop.pid(room.home)}",
            "",
            f"What the machines say is in {room.home.log.parent.parent}/*/server.log. Ctrl-C ends all of it.",
        ]
    )


def _role(machine: Machine, room: Room) -> str:
    roles = [*(["primary"] if machine.name == PRIMARY else []), *(["home of the room"] if machine is room.home else [])]
    return f"  ({', '.join(roles)})" if roles else ""


if __name__ == "__main__":
    main()
