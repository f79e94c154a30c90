"""The plot: tokens a day as bars of SVG, drawn here, so that the page needs no library."""

import math
from collections.abc import Sequence

from app.edge.clock import instant
from app.ops.admin_figures import DAY_MS, date, money, short
from app.ops.admin_queries import Day

DAYS = 30
LEFT, STEP, BAR, HEIGHT, TOP, FOOT = 52, 24, 16, 168, 16, 32
LABEL_EVERY = 7
LEAST_BAR = 2
LINES = 4
ROUND = (1, 2, 2.5, 5, 10)


def first_day_ms(now: int) -> int:
    return now - now % DAY_MS - (DAYS - 1) * DAY_MS


def draw(days: Sequence[Day], now: int) -> str:
    """The last DAYS days, today at the right; a day without usage is a gap. A table says the same in words."""
    known = {day.start_ms: day for day in days}
    shown = [known.get(start, Day(start, 0, 0, 0)) for start in range(first_day_ms(now), now + 1, DAY_MS)]
    most = max(day.tokens for day in shown)
    if not most:
        return f'<p class="empty">No usage in these {DAYS} days. It appears here with the first event.</p>'
    spacing = _spacing(most)
    top = spacing * math.ceil(most / spacing)
    marks = [index * spacing for index in range(round(top / spacing) + 1)]
    lines = "".join(_line(mark, top) for mark in marks)
    bars = "".join(_bar(place, day, top) for place, day in enumerate(shown))
    return (
        f'<svg class="plot" viewBox="0 0 {LEFT + STEP * DAYS} {TOP + HEIGHT + FOOT}" role="img" '
        f'aria-label="Tokens a day over {DAYS} days, at most {most:,}; the table below has the figures.">'
        f"{lines}{bars}</svg>{_table(shown)}"
    )


def _spacing(most: int) -> float:
    """Between two lines: the least round number with which LINES of them suffice."""
    size = 10.0 ** math.floor(math.log10(max(most / LINES, 1)))
    return max(1.0, next(factor * size for factor in ROUND if factor * size * LINES >= most))


def _line(mark: float, top: float) -> str:
    y = TOP + HEIGHT - round(mark / top * HEIGHT)
    return (
        f'<line class="rule" x1="{LEFT}" y1="{y}" x2="{LEFT + STEP * DAYS}" y2="{y}"/>'
        f'<text x="{LEFT - 8}" y="{y}" dy="0.32em" text-anchor="end">{short(mark)}</text>'
    )


def _bar(place: int, day: Day, top: float) -> str:
    x, base = LEFT + place * STEP + (STEP - BAR) // 2, TOP + HEIGHT
    label = "" if (DAYS - 1 - place) % LABEL_EVERY else _label(place, base, day.start_ms)
    if not day.tokens:
        return label
    high = max(LEAST_BAR, round(day.tokens / top * HEIGHT))
    said = f"{instant(day.start_ms)[:10]}: {day.tokens:,} tokens, {day.events:,} events, {money(day.cost_micros)}"
    # The whole height answers the pointer, so that a short bar is not hard to hit.
    return (
        f'<g><title>{said}</title><rect class="column" x="{x - (STEP - BAR) // 2}" y="{TOP}" width="{STEP}" '
        f'height="{HEIGHT}"/><rect x="{x}" y="{base - high}" width="{BAR}" height="{high}" rx="2"/></g>{label}'
    )


def _label(place: int, base: int, start_ms: int) -> str:
    # The last would hang out at the right, were it under the middle of its bar.
    last = place == DAYS - 1
    x = LEFT + (DAYS if last else place) * STEP + (0 if last else STEP // 2)
    text = "today" if last else date(start_ms)
    return f'<text x="{x}" y="{base + 24}" text-anchor="{"end" if last else "middle"}">{text}</text>'


def _table(shown: Sequence[Day]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{date(day.start_ms)}</th><td>{day.tokens:,}</td><td>{day.events:,}</td>'
        f"<td>{money(day.cost_micros)}</td></tr>"
        for day in reversed(shown)
    )
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("Day (UTC)", "Tokens", "Events", "Cost"))
    return (
        '<details class="days"><summary>Day by day</summary>'
        f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></details>"
    )
