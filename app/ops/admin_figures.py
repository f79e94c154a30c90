"""Figures: numbers and times as an operator reads them."""

from app.edge.clock import instant

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# Beyond these days a date says more than how long ago it was.
AGO_DAYS = 14


def short(number: float) -> str:
    """A number in four characters or so."""
    size = float(number)
    for unit in ("", "k", "M", "G"):
        if size < 1000:
            return f"{size:.3g}{unit}"
        size /= 1000
    return f"{size:,.0f}T"


def money(micros: int) -> str:
    return f"${micros / 1e6:,.2f}"


def bounded(number: int, most: int) -> str:
    """A number that was counted no further than `most`."""
    return f"{number:,}+" if number >= most else f"{number:,}"


def date(at_ms: int) -> str:
    """The day and the month, UTC: 21 Nov."""
    text = instant(at_ms)
    return f"{int(text[8:10])} {MONTHS[int(text[5:7]) - 1]}"


def moment(at_ms: int, now: int) -> str:
    """A time of day where it was today, with its date where it was not; all of it on hovering."""
    clock = instant(at_ms)[11:19]
    if at_ms // DAY_MS == now // DAY_MS:
        return _time(at_ms, clock)
    year = instant(at_ms)[:4]
    return _time(at_ms, f"{date(at_ms)}, {clock[:5]}" if year == instant(now)[:4] else f"{date(at_ms)} {year}")


def ago(at_ms: int, now: int) -> str:
    """How long ago it was: 5 min ago."""
    past = max(0, now - at_ms)
    for size, unit in ((DAY_MS, "days"), (HOUR_MS, "h"), (MINUTE_MS, "min")):
        if past >= size:
            count = past // size
            if unit == "days" and count > AGO_DAYS:
                return moment(at_ms, now)
            return _time(at_ms, f"{count} {'day' if (unit, count) == ('days', 1) else unit} ago")
    return _time(at_ms, "just now")


def _time(at_ms: int, text: str) -> str:
    iso = instant(at_ms)
    return f'<time datetime="{iso}" title="{iso[:10]} {iso[11:19]} UTC">{text}</time>'
