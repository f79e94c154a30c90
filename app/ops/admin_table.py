"""Tables of the operator's page; on a phone each cell stands under its own head."""

from collections.abc import Sequence

Cells = Sequence[tuple[str, str]]


def table(heads: Sequence[str], rows: Sequence[Cells]) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "".join("<tr>" + "".join(_cell(name, inner) for name, inner in row) + "</tr>" for row in rows)
    return f'<div class="wide card"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(head: str, inner: str) -> str:
    return f'<td data-head="{head}"><div>{inner}</div></td>' if inner else "<td></td>"
