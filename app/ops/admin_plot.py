"""The plot: tokens a day as bars of SVG, drawn here, so that the page needs no library."""

from collections.abc import Sequence

from app.edge.clock import instant
from app.ops.admin_queries import Day

DAYS = 30
DAY_MS = 86_400_000
STEP, BAR, HEIGHT, TOP, FOOT = 24, 16, 160, 28, 28
LABEL_EVERY = 7
LEAST_BAR = 2


def first_day_ms(now: int) -> int:
    return now - now % DAY_MS - (DAYS - 1) * DAY_MS


def draw(days: Sequence[Day], now: int) -> str:
    """The last DAYS days, today at the right; a day without usage is a gap."""
    known = {day.start_ms: day for day in days}
    shown = [known.get(start, Day(start, 0, 0, 0)) for start in range(first_day_ms(now), now + 1, DAY_MS)]
    most = max(day.tokens for day in shown)
    bars = "".join(_bar(place, day, most) for place, day in enumerate(shown))
    width = STEP * DAYS
    base = TOP + HEIGHT
    return (
        f'<svg class="plot" viewBox="0 0 {width} {base + FOOT}" role="img" '
        f'aria-label="Tokens a day over {DAYS} days, at most {most:,}">'
        f'<line class="rule" x1="0" y1="{TOP}" x2="{width}" y2="{TOP}"/>'
        f'<line class="rule" x1="0" y1="{base}" x2="{width}" y2="{base}"/>'
        f'<text x="0" y="{TOP - 7}">{short(most)} tokens</text>{bars}</svg>'
    )


def short(number: int) -> str:
    """A number in four characters or so."""
    size = float(number)
    for unit in ("", "k", "M", "G"):
        if size < 1000:
            return f"{size:.3g}{unit}"
        size /= 1000
    return f"{size:,.0f}T"


def _bar(place: int, day: Day, most: int) -> str:
    x, base = place * STEP + (STEP - BAR) // 2, TOP + HEIGHT
    date = instant(day.start_ms)[:10]
    label = "" if place % LABEL_EVERY else _label(place, base, date[5:])
    if not day.tokens:
        return label
    high = max(LEAST_BAR, round(day.tokens / most * HEIGHT))
    said = f"{date}: {day.tokens:,} tokens, {day.events:,} events, ${day.cost_micros / 1e6:,.2f}"
    return f'<rect x="{x}" y="{base - high}" width="{BAR}" height="{high}" rx="2"><title>{said}</title></rect>{label}'


def _label(place: int, base: int, text: str) -> str:
    # The first would hang out at the left, were it under the middle of its bar.
    anchor, x = ("middle", place * STEP + STEP // 2) if place else ("start", 0)
    return f'<text x="{x}" y="{base + 20}" text-anchor="{anchor}">{text}</text>'
