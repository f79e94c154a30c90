"""The report: figures as a table to read and as JSON to keep."""

import os
import platform
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from app.edge import sqlite
from bench.figure import Figure, Missing

COLUMNS = ("figure", "median", "beside", "its median", "ratio", "aim", "met", "")
WIDTH = 170

Taken = Sequence[Figure | Missing]


def print_table(taken: Taken) -> None:
    table = Table(*COLUMNS)
    for column in (1, 3, 4, 5):
        table.columns[column].justify = "right"
    for figure in taken:
        if isinstance(figure, Missing):
            table.add_row(figure.name, *[""] * 6, f"not measured: {figure.reason}")
        else:
            table.add_row(*_cells(figure))
    console = Console()
    Console(width=max(WIDTH, console.width)).print(table)


def as_json(taken: Taken) -> dict[str, Any]:
    """The figures, and the machine that they are of."""
    return {
        "machine": {"cores": os.cpu_count(), "load": os.getloadavg(), "system": platform.platform()},
        "versions": {"python": platform.python_version(), "sqlite": sqlite.VERSION},
        "figures": [_fields(figure) for figure in taken],
    }


def _fields(figure: Figure | Missing) -> dict[str, Any]:
    met = {} if isinstance(figure, Missing) else {"met": figure.met}
    return figure._asdict() | met


def _cells(figure: Figure) -> list[str]:
    return [
        figure.name,
        f"{_number(figure.median)} {figure.unit}",
        figure.baseline_name or "",
        "" if figure.baseline is None else _number(figure.baseline),
        "" if figure.ratio is None else f"{figure.ratio:.2f}",
        _aim(figure),
        {True: "yes", False: "NO", None: ""}[figure.met],
        figure.note,
    ]


def _aim(figure: Figure) -> str:
    if figure.aim is None:
        return ""
    return f"≥ {figure.aim:g}" if figure.ratio is not None else f"≤ {figure.aim:g}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
