"""The operator's page: what it shows, as HTML; all that others wrote is escaped here."""

from collections.abc import Mapping, Sequence
from html import escape

from app.instances.queries import Told
from app.ops.admin_figures import ago, bounded, moment, money, short
from app.ops.admin_machines import draw_machines
from app.ops.admin_plot import DAYS, draw
from app.ops.admin_queries import COUNTED, Counts, Day, Listed
from app.ops.admin_table import Cells, table
from app.ops.machines import Seen
from app.projects.access_queries import Instance

SHOWN_CHARACTERS = 160
INSTANCES_PAGE = 50
HISTORY_PAGE = 50


def sign_in(*, wrong: bool) -> str:
    problem = '<p class="problem" role="alert">That is not the admin token.</p>' if wrong else ""
    return _shell(
        "Operator",
        '<main class="entry"><h1>litehouse</h1><p class="soft">For whoever runs this server.</p>'
        '<form method="post" action="/admin"><label for="token">Admin token</label>'
        '<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>'
        f"{problem}<button>Enter</button></form></main>",
    )


def overview(
    days: Sequence[Day],
    counts: Counts,
    machines: Sequence[Seen],
    here: str,
    listed: Sequence[Listed],
    connections: Mapping[str, int],
    after: str,
    now: int,
) -> str:
    answered = [one.status for one in machines if one.status is not None]
    tokens, events = sum(day.tokens for day in days), sum(day.events for day in days)
    spent = (
        ("Tokens", f'<span title="{tokens:,}">{short(tokens)}</span>'),
        ("Events", f'<span title="{events:,}">{short(events)}</span>'),
        ("Cost", money(sum(day.cost_micros for day in days))),
    )
    held = (
        ("Users", bounded(counts.users, COUNTED)),
        ("Active keys", bounded(counts.keys, COUNTED)),
        ("Projects", bounded(counts.projects, COUNTED)),
        ("Instances", bounded(counts.instances, COUNTED)),
        ("Open now", f"{sum(status.instances for status in answered):,}"),
        ("Connections", f"{sum(status.connections for status in answered):,}"),
    )
    return _shell(
        "Overview",
        f'{_bar("")}<main><h1>Overview</h1><section class="card" aria-labelledby="usage">'
        f'<div class="head"><h2 id="usage">Usage <small>all users, the last {DAYS} days</small></h2>'
        f"{_tiles(spent)}</div>{draw(days, now)}</section>"
        f'<section class="card" aria-label="What there is">{_tiles(held)}</section>'
        f"{draw_machines(machines, here)}"
        f'<section id="instances"><h2>Instances</h2>{_instances(listed, connections, now)}'
        f"{_pages('/admin', after, listed)}</section></main>",
    )


def _tiles(numbers: Sequence[tuple[str, str]]) -> str:
    tiles = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in numbers)
    return f'<dl class="tiles">{tiles}</dl>'


def instance(row: Instance, told: Sequence[Told], now: int, *, newest: bool) -> str:
    name = escape(row.name)
    facts = " · ".join(
        (f"<code>{escape(row.id)}</code>", escape(row.region), "read-only" if row.is_readonly else "writable")
    )
    keys = (
        '<section><div class="head"><h2>Keys <small id="count"></small></h2>'
        '<input id="filter" type="search" aria-label="Show keys that contain" placeholder="Filter keys"></div>'
        '<div id="keys" class="card keys"></div><p id="nothing" class="card empty" hidden></p>'
        '<form id="new" class="card key"><div><h3>New key</h3>'
        '<input name="key" aria-label="Name of the new key" placeholder="Name" autocomplete="off" required></div>'
        '<div><textarea name="value" rows="2" aria-label="Value of the new key" '
        'placeholder="Text or JSON"></textarea><p class="problem" role="alert" hidden></p></div>'
        '<div class="moves"><button>Add</button></div></form>'
        '<noscript><p class="card empty">Live keys need the script of this page.</p></noscript></section>'
    )
    return _shell(
        row.name,
        f'{_bar(name)}<main id="live" data-instance="{escape(row.id)}" data-newest="{int(newest)}">'
        f'<header><h1>{name} <span id="state" class="state" role="status">connecting</span></h1>'
        f'<p class="soft">{facts}</p></header>{keys}'
        f'<section><h2>History</h2><div id="history">{history(row.id, told, now)}</div></section></main>',
        '<script src="/admin/admin.js" defer></script>',
    )


def history(instance_id: str, told: Sequence[Told], now: int) -> str:
    """The lines of one page, newest first, with the way to older ones."""
    if not told:
        return '<p class="card empty">No changes here. Whatever is written is told here with who wrote it.</p>'
    rows = [_line(one, now) for one in told]
    # A page may end early where values are large, so the way on is there until the first change.
    older = (
        f'<a class="button" href="/admin/instances/{escape(instance_id)}?before={told[-1].seq}#history">Older</a>'
        if told[-1].seq > 1
        else ""
    )
    return table(("Seq", "When (UTC)", "Who", "Change", "Key", "Now", "Before"), rows) + older


def _line(one: Told, now: int) -> Cells:
    who = f"{escape(one.actor_name or one.actor_id)} <small>{escape(one.actor_kind)}</small>"
    return (
        ("Seq", str(one.seq)),
        ("When", moment(one.at_ms, now)),
        ("Who", who),
        ("Change", f'<b class="{escape(one.op)}">{escape(one.op)}</b>'),
        ("Key", f"<code>{escape(one.key or '')}</code>" if one.key else ""),
        ("Now", _value(one.value)),
        ("Before", _value(one.previous_value)),
    )


def _value(text: str | None) -> str:
    if text is None:
        return ""
    shown = text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}… ({len(text):,} characters)"
    return f"<code>{escape(shown)}</code>"


def _instances(listed: Sequence[Listed], connections: Mapping[str, int], now: int) -> str:
    if not listed:
        return '<p class="card empty">No instances here. A project brings its first one.</p>'
    rows = [_instance_row(one, connections.get(one.id), now) for one in listed[:INSTANCES_PAGE]]
    return table(("Instance", "Project", "Owner", "Region", "Connections", "Updated"), rows)


def _instance_row(one: Listed, connected: int | None, now: int) -> Cells:
    mark = ' <span class="chip">read-only</span>' if one.is_readonly else ""
    return (
        (
            "Instance",
            f'<a href="/admin/instances/{escape(one.id)}">{escape(one.name)}</a>{mark}<code>{escape(one.id)}</code>',
        ),
        ("Project", escape(one.project)),
        ("Owner", f"<code>{escape(one.owner_id)}</code>"),
        ("Region", escape(one.region)),
        ("Connections", "" if connected is None else f'<span class="state on">{connected:,}</span>'),
        ("Updated", ago(one.updated_at_ms, now)),
    )


def _pages(path: str, after: str, listed: Sequence[Listed]) -> str:
    first = f'<a class="button" href="{path}#instances">First</a>' if after else ""
    more = len(listed) > INSTANCES_PAGE
    following = (
        f'<a class="button" href="{path}?after={escape(listed[INSTANCES_PAGE - 1].id)}#instances">Next</a>'
        if more
        else ""
    )
    return f'<p class="moves">{first}{following}</p>' if first or following else ""


def _bar(here: str) -> str:
    trail = f"<span>{here}</span>" if here else ""
    return (
        f'<nav><a class="brand" href="/admin">litehouse</a>{trail}<a class="aside" href="/docs">Interface</a>'
        '<form method="post" action="/admin/leave"><button class="quiet">Leave</button></form></nav>'
    )


def _shell(title: str, body: str, script: str = "") -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)} · litehouse</title>\n"
        '<link rel="icon" href="data:,">\n<link rel="stylesheet" href="/admin/admin.css">\n'
        f"{script}</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
