"""The operator's page: what it shows, as HTML; all that others wrote is escaped here."""

from collections.abc import Mapping, Sequence
from html import escape

from app.edge.clock import instant
from app.instances.queries import Told
from app.ops.admin_plot import DAYS, draw, short
from app.ops.admin_queries import Counts, Day, Listed
from app.projects.access_queries import Instance

SHOWN_CHARACTERS = 160
INSTANCES_PAGE = 50
HISTORY_PAGE = 50


def sign_in(*, wrong: bool) -> str:
    problem = '<p class="problem" role="alert">That is not the admin token.</p>' if wrong else ""
    return _shell(
        "Operator",
        '<main class="entry"><h1>litehouse</h1><p class="soft">This page is the operator\'s.</p>'
        '<form method="post" action="/admin"><label for="token">Admin token</label>'
        '<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>'
        f"{problem}<button>Enter</button></form></main>",
    )


def overview(
    days: Sequence[Day], counts: Counts, listed: Sequence[Listed], connections: Mapping[str, int], after: str, now: int
) -> str:
    numbers = (
        ("Tokens", short(sum(day.tokens for day in days))),
        ("Events", short(sum(day.events for day in days))),
        ("Cost", f"${sum(day.cost_micros for day in days) / 1e6:,.2f}"),
        ("Users", f"{counts.users:,}"),
        ("Active keys", f"{counts.keys:,}"),
        ("Projects", f"{counts.projects:,}"),
        ("Instances", f"{counts.instances:,}"),
        ("Open here", f"{len(connections):,}"),
    )
    tiles = "".join(f"<li><span>{name}</span><b>{value}</b></li>" for name, value in numbers)
    usage = f'<section><h2>Usage <small>all users, {DAYS} days</small></h2><div class="card">{draw(days, now)}</div>'
    return _shell(
        "Overview",
        f'{_bar("")}<main>{usage}<ul class="tiles">{tiles}</ul></section>'
        f'<section id="instances"><h2>Instances</h2>{_instances(listed, connections)}'
        f"{_pages('/admin', after, listed)}</section></main>",
    )


def instance(row: Instance, told: Sequence[Told], *, newest: bool) -> str:
    name = escape(row.name)
    facts = " · ".join(
        (f"<code>{escape(row.id)}</code>", escape(row.region), "read-only" if row.is_readonly else "writable")
    )
    keys = (
        '<section><h2>Keys <small id="count"></small></h2><div id="keys" class="keys"></div>'
        '<form id="new" class="card key"><h3>New key</h3><input name="key" aria-label="Key" placeholder="Key" required>'
        '<textarea name="value" rows="2" aria-label="Value" placeholder="Text or JSON"></textarea>'
        '<div class="moves"><button>Set</button></div></form>'
        "<noscript><p>Live keys need the script of this page.</p></noscript></section>"
    )
    return _shell(
        row.name,
        f'{_bar(name)}<main id="live" data-instance="{escape(row.id)}" data-newest="{int(newest)}">'
        f'<header><h1>{name} <span id="state" class="state" role="status">connecting</span></h1>'
        f'<p class="soft">{facts}</p></header>{keys}'
        f'<section><h2>History</h2><div id="history">{history(row.id, told)}</div></section></main>',
        '<script src="/admin/admin.js" defer></script>',
    )


def history(instance_id: str, told: Sequence[Told]) -> str:
    """The lines of one page, newest first, with the way to older ones."""
    if not told:
        return '<p class="soft">No changes.</p>'
    rows = "".join(_line(one) for one in told)
    # A page may end early where values are large, so the way on is there until the first change.
    older = (
        f'<a class="button" href="/admin/instances/{escape(instance_id)}?before={told[-1].seq}#history">Older</a>'
        if told[-1].seq > 1
        else ""
    )
    heads = "".join(f"<th>{head}</th>" for head in ("Seq", "When (UTC)", "Who", "Change", "Key", "Now", "Before"))
    return f'<div class="wide card"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>{older}'


def _line(one: Told) -> str:
    when = instant(one.at_ms)[:19].replace("T", " ")
    who = f"{escape(one.actor_name or one.actor_id)} <small>{escape(one.actor_kind)}</small>"
    cells = (
        ("Seq", str(one.seq)),
        ("When", f"<time>{when}</time>"),
        ("Who", who),
        ("Change", f'<b class="{escape(one.op)}">{escape(one.op)}</b>'),
        ("Key", f"<code>{escape(one.key or '')}</code>" if one.key else ""),
        ("Now", _value(one.value)),
        ("Before", _value(one.previous_value)),
    )
    return _row(cells)


def _value(text: str | None) -> str:
    if text is None:
        return ""
    shown = text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}… ({len(text):,} characters)"
    return f"<code>{escape(shown)}</code>"


def _instances(listed: Sequence[Listed], connections: Mapping[str, int]) -> str:
    if not listed:
        return '<p class="soft">None here.</p>'
    heads = "".join(f"<th>{head}</th>" for head in ("Instance", "Project", "Owner", "Region", "Live", "Updated (UTC)"))
    rows = "".join(_instance_row(one, connections.get(one.id)) for one in listed[:INSTANCES_PAGE])
    return f'<div class="wide card"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'


def _instance_row(one: Listed, connected: int | None) -> str:
    mark = " <small>read-only</small>" if one.is_readonly else ""
    cells = (
        (
            "Instance",
            f'<a href="/admin/instances/{escape(one.id)}">{escape(one.name)}</a>{mark}<br>'
            f"<code>{escape(one.id)}</code>",
        ),
        ("Project", escape(one.project)),
        ("Owner", f"<code>{escape(one.owner_id)}</code>"),
        ("Region", escape(one.region)),
        ("Live", "" if connected is None else f'<span class="state on">{connected}</span>'),
        ("Updated", f"<time>{escape(one.updated_at)}</time>"),
    )
    return _row(cells)


def _row(cells: Sequence[tuple[str, str]]) -> str:
    """A line of a table; on a phone each cell stands under its own head."""
    return "<tr>" + "".join(_cell(head, inner) for head, inner in cells) + "</tr>"


def _cell(head: str, inner: str) -> str:
    return f'<td data-head="{head}"><div>{inner}</div></td>' if inner else "<td></td>"


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
