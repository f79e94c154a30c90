"""Gauges: what a collector sees of this machine, the same as the operator's map shows of all."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from app.edge.backup import KINDS, Backup
from app.edge.metrics import Metrics
from app.ops.machines import Machines, Status


class Shown(NamedTuple):
    """A gauge, and what it shows; what is not known is -1."""

    name: str
    description: str
    value: Callable[[Status], float | None]


OF_A_MACHINE = (
    Shown("litehouse_primary", "1 on the machine that writes the core.", lambda here: here.is_primary),
    Shown(
        "litehouse_lag_seconds",
        "How far the core here is behind the primary's; -1 while that is not known.",
        lambda here: _seconds(here.lag_ms),
    ),
    Shown(
        "litehouse_position_sequence",
        "How many commits the core here has, in its epoch.",
        lambda here: here.sequence or 0,
    ),
    Shown("litehouse_instances_open", "Instances open here.", lambda here: here.instances),
    Shown("litehouse_connections", "Connections of instances here.", lambda here: here.connections),
)
OF_ONE_OF_SEVERAL = (
    Shown("litehouse_homes", "Instances that live here, open or not; -1: not known.", lambda here: here.homes),
    Shown(
        "litehouse_lease_seconds",
        "For how long this machine may acknowledge for them if the primary answers no more; 0: not at all.",
        lambda here: _seconds(here.lease_ms),
    ),
)
OF_A_SPOOL = (
    Shown("litehouse_spool_items", "What waits here for the primary; -1: not known.", lambda here: here.spool_items),
    Shown(
        "litehouse_spool_age_seconds",
        "For how long the oldest of it has waited; 0 when nothing does, -1: not known.",
        lambda here: 0 if here.spool_items == 0 else _seconds(here.spool_age_ms),
    ),
    Shown(
        "litehouse_spool_refused",
        "What the primary would never take, kept to be looked at; -1: not known.",
        lambda here: here.spool_refused,
    ),
)


def measure(metrics: Metrics, machines: Machines) -> None:
    """Who this machine is, how far it has come, what lives on it and what it owes."""
    here = machines.here
    place = metrics.gauge("litehouse_machine_info", "1; its labels say which machine this is.", "region", "machine")
    place.labels(here.region, here.machine).set(1)
    shown: Sequence[Shown] = OF_A_MACHINE
    if here.lease_ms is not None:
        shown = (*shown, *OF_ONE_OF_SEVERAL)
    if machines.owes:
        shown = (*shown, *OF_A_SPOOL)
    gauges = [(metrics.gauge(one.name, one.description), one.value) for one in shown]

    def look() -> None:
        here = machines.here
        for gauge, value in gauges:
            gauge.set(_known(value(here)))

    metrics.before_collecting(look)


def measure_backup(metrics: Metrics, backup: Backup) -> None:
    """How far the backup of this machine has come, as a whole and of each kind of file."""
    oldest = metrics.gauge(
        "litehouse_backup_age_seconds", "Since when something may not be in the backup; -1 until that is known."
    )
    up = metrics.gauge("litehouse_backup_up", "1 while Litestream runs and the replica takes what it ships.")
    files = metrics.gauge("litehouse_backup_files", "Databases that Litestream holds.")
    shipped = metrics.gauge(
        "litehouse_backup_shipped", "1 while all of such files was in the backup when it was last asked.", "of"
    )
    age = metrics.gauge(
        "litehouse_backup_file_age_seconds",
        "Since when something of such a file may not be in the backup; 0 where there is none, -1 until it is known.",
        "of",
    )

    def look() -> None:
        oldest.set(_known(_seconds(backup.age_ms)))
        up.set(backup.up)
        files.set(backup.files)
        kept = backup.look()
        for kind in KINDS:
            one = (kept or {}).get(kind)
            # Of what is not here nothing is lacking.
            shipped.labels(kind).set(backup.up if one is None else one.shipped)
            age.labels(kind).set(-1 if kept is None else 0 if one is None else one.age_ms / 1000)

    metrics.before_collecting(look)


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000


def _known(value: float | None) -> float:
    return -1 if value is None else value
