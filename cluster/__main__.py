"""The cluster's command: scripts/cluster [--engine litefs|standin] [--delay MS]"""

import os
import shlex
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from cluster.engines import ENGINES, find_litefs, why_not_litefs
from cluster.laptop import Broken, Laptop
from cluster.machines import AMS, NRT, PRIMARY, REGIONS

ROOM = "hello"
MILLISECONDS = 1000


@click.command()
@click.option("--engine", type=click.Choice(list(ENGINES)), help="What replicates.  [default: litefs where it can run]")
@click.option("--delay", type=click.IntRange(0, 1_000), default=20, show_default=True, help="Between regions, in ms.")
def main(engine: str | None, delay: int) -> None:
    """Three regions on this computer, until Ctrl-C. What they hold is gone after that."""
    signal.signal(signal.SIGTERM, _interrupt)
    missing = why_not_litefs()
    if engine == "litefs" and missing is not None:
        raise click.ClickException(missing)
    kind = engine or ("standin" if missing else "litefs")
    click.echo(_introduce(kind, missing))
    with TemporaryDirectory(prefix="litehouse-cluster-") as folder:
        laptop = Laptop(ENGINES[kind](Path(folder), list(REGIONS)), Path(folder), delay / MILLISECONDS)
        try:
            laptop.start()
            click.echo(_explain(laptop))
            for machine in laptop.watch():
                click.echo(f"{machine.name} had ended and is back, as process {laptop.pid(machine)}.")
        except Broken as broken:
            raise click.ClickException(str(broken)) from broken
        except KeyboardInterrupt:
            click.echo("\nEnding all of it.")
        finally:
            # A second Ctrl-C must not leave a mount behind.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            laptop.close()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _introduce(kind: str, missing: str | None) -> str:
    if kind == "litefs":
        return f"LiteFS ({find_litefs()}) replicates the core."
    why = f"LiteFS cannot run here: {missing}" if missing else "as it was asked for"
    return f"A stand-in for LiteFS replicates the core ({why}). It copies files, and is no file system."


def _explain(laptop: Laptop) -> str:
    by_name = {machine.name: machine for machine in laptop.machines}
    ams, nrt, home = by_name[AMS], by_name[NRT], by_name[PRIMARY]
    python = shlex.quote(os.path.relpath(sys.executable))
    json = "-H 'Content-Type: application/json' -d"
    told = [
        f"  {machine.region}  {machine.url}  process {laptop.pid(machine)}{'  (primary)' if machine is home else ''}"
        for machine in laptop.machines
    ]
    return "\n".join(
        [
            *told,
            "",
            "Write in one region; X-Txid in the answer says how far the core had come:",
            f'  curl -si {ams.url}/api/projects {json} \'{{"name":"garden"}}\'',
            "Read in another:",
            f"  curl -s {nrt.url}/api/projects",
            "See who is where, and how far behind:",
            f"  curl -s {nrt.url}/api/health",
            f"Open a socket from the wrong region ({ROOM} is made on first use):",
            f"  {python} -m websockets ws{nrt.url.removeprefix('http')}/sync/{ROOM}",
            "Change a key by a third region, and see it there:",
            f'  curl -s -X PUT {ams.url}/api/instances/{ROOM}/keys/greeting {json} \'{{"value":"hi"}}\'',
            "Kill the machine that holds the room, watch it come back, and open the socket again:",
            f"  kill -9 {laptop.pid(home)}",
            "",
            f"What the machines say is in {home.log.parent.parent}/*/server.log. Ctrl-C ends all of it.",
        ]
    )


if __name__ == "__main__":
    main()
