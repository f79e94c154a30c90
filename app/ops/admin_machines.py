"""The map of the machines on the operator's page."""

from collections.abc import Sequence
from html import escape

from app.edge.node import MAX_LAG_SECONDS
from app.ops.admin_table import Cells, table
from app.ops.machines import Seen, Status

HEADS = ("Region", "Machine", "Role", "Position", "Lag", "Homes", "Open", "Connections", "Spool", "Backup")
# What may not be in the backup is a few seconds old as a rule, half a minute with hundreds of open instances.
OLD_BACKUP_MS = 60_000
# What waits for a primary that answers is gone in a moment.
OLD_SPOOL_MS = 60_000


def draw_machines(seen: Sequence[Seen], here: str) -> str:
    """`here` is the machine that answers."""
    rows = [_row(one, here, _epoch_of(seen)) for one in seen]
    return f'<section id="machines"><h2>Machines</h2>{table(HEADS, rows)}</section>'


def _epoch_of(seen: Sequence[Seen]) -> str | None:
    """The primary's, which the others should be of."""
    return next((one.status.epoch for one in seen if one.status is not None and one.status.is_primary), None)


def _row(one: Seen, here: str, epoch: str | None) -> Cells:
    mark = ' <span class="chip">this one</span>' if one.machine == here else ""
    place = (("Region", escape(one.region)), ("Machine", f"<code>{escape(one.machine)}</code>{mark}"))
    status = one.status
    if status is None:
        said = {"Role": _wrong("does not answer"), "Homes": _homes(one)}
        return (*place, *((head, said.get(head, "")) for head in HEADS[len(place) :]))
    return (
        *place,
        ("Role", '<span class="state on">primary</span>' if status.is_primary else "replica"),
        ("Position", _position(status, epoch)),
        ("Lag", _lag(status)),
        ("Homes", _homes(one)),
        ("Open", f"{status.instances:,}"),
        ("Connections", f"{status.connections:,}"),
        ("Spool", _spool(status)),
        ("Backup", _backup(status)),
    )


def _position(status: Status, epoch: str | None) -> str:
    if status.sequence is None:
        return _wrong("none")
    number = f"<code>{status.sequence:,}</code>"
    return number if epoch in (None, status.epoch) else f"{number} {_wrong('of another epoch')}"


def _lag(status: Status) -> str:
    if status.is_primary:
        return ""
    if status.lag_ms is None:
        return _wrong("not known")
    said = _duration(status.lag_ms)
    return said if status.lag_ms < MAX_LAG_SECONDS * 1000 else _wrong(said)


def _homes(one: Seen) -> str:
    if one.homes is None:
        return '<span class="soft">all</span>'
    count = f"{one.homes:,}"
    return f"{count} {_wrong('no lease')}" if one.status is not None and one.status.lease_ms == 0 else count


def _spool(status: Status) -> str:
    if status.spool_items is None:
        return ""
    said = f"{status.spool_items:,}"
    if status.spool_age_ms is not None:
        said += f", {_duration(status.spool_age_ms)}"
        said = said if status.spool_age_ms < OLD_SPOOL_MS else _wrong(said)
    return f"{said} {_wrong(f'{status.spool_refused:,} refused')}" if status.spool_refused else said


def _backup(status: Status) -> str:
    if not status.backed_up:
        return '<span class="soft">none</span>'
    if status.backup_age_ms is None:
        return _wrong("not known")
    said = f"{_duration(status.backup_age_ms)} ago"
    lacking = [kind for kind, kept in (status.backup or {}).items() if not kept.shipped]
    if lacking:
        return _wrong(f"{said}, not all of {', '.join(map(escape, lacking))}")
    return said if status.backup_age_ms < OLD_BACKUP_MS else _wrong(said)


def _duration(ms: int) -> str:
    if ms < 1_000:
        return f"{ms} ms"
    seconds = ms // 1_000
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7_200 else f"{seconds // 3_600} h"


def _wrong(text: str) -> str:
    return f'<span class="problem">{text}</span>'
