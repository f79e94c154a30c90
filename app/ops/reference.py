"""The reference: the document as one page of HTML, grouped by room."""

import re
from html import escape
from typing import Any, NamedTuple

from app.edge.openapi import ADMIN, API_KEY, BEARER, DELEGATE
from app.errors import CODES
from app.ops import curl
from app.ops.shape import REQUIRED, Shapes, field, prose

Node = dict[str, Any]

CREDENTIALS = {BEARER: "Session token", API_KEY: "API key", ADMIN: "Operator", DELEGATE: "Delegate"}
PLACES = {
    "anywhere": ("Any region", "The nearest machine answers."),
    "at_primary": ("Primary", "Runs where the database is written, wherever you call it."),
    "at_home": ("Home", "Runs where the instance lives, wherever you call it."),
    "here": ("This machine", "Says something of the machine that you reached."),
}
METHODS = ("get", "post", "put", "patch", "delete")


class Entry(NamedTuple):
    """One operation, and where it stands."""

    method: str
    path: str
    node: Node

    @property
    def id(self) -> str:
        name: str = self.node["operationId"]
        return name


def render(document: Node) -> str:
    """The whole page; it refers to nothing but its own style sheet and script."""
    info = document["info"]
    rooms = _rooms(document)
    sections = "".join(_room(tag, entries, document) for tag, entries in rooms)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(info['title'])} · interface</title>\n"
        '<link rel="icon" href="data:,">\n<link rel="stylesheet" href="/docs/docs.css">\n'
        '<script src="/docs/docs.js" defer></script>\n</head>\n<body>\n'
        f"{_nav(info, rooms)}\n<main>\n{_intro(info, document)}\n{sections}"
        '<p id="nothing" hidden>No operation matches.</p>\n</main>\n</body>\n</html>\n'
    )


def _rooms(document: Node) -> list[tuple[Node, list[Entry]]]:
    entries = [
        Entry(method.upper(), path, item[method])
        for path, item in document["paths"].items()
        for method in METHODS
        if method in item
    ]
    return [(tag, [entry for entry in entries if entry.node["tags"] == [tag["name"]]]) for tag in document["tags"]]


def _nav(info: Node, rooms: list[tuple[Node, list[Entry]]]) -> str:
    lists = []
    for tag, entries in rooms:
        items = "".join(
            f'<li data-for="{entry.id}"><a href="#{entry.id}">{_method(entry)}<span>{_path(entry.path)}</span></a></li>'
            for entry in entries
        )
        name = escape(tag["name"])
        lists.append(f'<li class="room"><a href="#room-{name}">{name}</a><ul>{items}</ul></li>')
    return (
        f'<nav aria-label="Operations"><a class="brand" href="#top">{escape(info["title"])}'
        f" <small>{escape(info['version'])}</small></a>"
        '<input id="filter" type="search" placeholder="Filter" aria-label="Filter operations" hidden>'
        f'<ul class="rooms">{"".join(lists)}</ul></nav>'
    )


def _intro(info: Node, document: Node) -> str:
    schemes = document["components"]["securitySchemes"]
    credentials = "".join(
        f"<tr><th>{CREDENTIALS[name]}</th><td><code>{_header_of(scheme)}</code></td>"
        f"<td>{prose(scheme['description'])}</td></tr>"
        for name, scheme in schemes.items()
    )
    places = "".join(f"<tr><th>{name}</th><td>{text}</td></tr>" for name, text in PLACES.values())
    codes = "".join(f"<li><b>{status}</b> <code>{code}</code></li>" for code, status in CODES.items())
    error = document["components"]["schemas"]["Error"]
    fields = error["properties"] | {"code": {"type": "string", "description": "One of the codes above."}}
    envelope = Shapes(document["components"]["schemas"]).fields(error | {"properties": fields}, given=False)
    return (
        f'<header id="top"><h1>{escape(info["title"])}</h1><p class="lead">{escape(info["summary"])}</p>'
        f'{_paragraphs(info["description"])}<p><a class="button" href="/openapi.json">OpenAPI 3.1 document</a></p>'
        f'<h2>Credentials</h2><div class="wide"><table>{credentials}</table></div>'
        f'<h2>Placement</h2><div class="wide"><table>{places}</table></div>'
        "<h2>Errors</h2><p>A refusal has one shape, and a code from a closed set.</p>"
        f'<ul class="codes">{codes}</ul>{envelope}</header>'
    )


def _header_of(scheme: Node) -> str:
    return escape(scheme.get("name", "Authorization: Bearer"))


def _room(tag: Node, entries: list[Entry], document: Node) -> str:
    name = escape(tag["name"])
    articles = "".join(_article(entry, document) for entry in entries)
    return (
        f'<section class="room" aria-labelledby="room-{name}"><h2 id="room-{name}">{name}</h2>'
        f"{_paragraphs(tag['description'])}{articles}</section>\n"
    )


def _article(entry: Entry, document: Node) -> str:
    node, components = entry.node, document["components"]
    shapes = Shapes(components["schemas"])
    line = escape(curl.render(entry.method, entry.path, node, components["schemas"]))
    line = line.replace(curl.ORIGIN, f'<span class="origin">{curl.ORIGIN}</span>')
    return (
        f'<article id="{entry.id}"><h3><a href="#{entry.id}">{_method(entry)}<code>{_path(entry.path)}</code></a></h3>'
        f'<p class="lead">{prose(node["summary"])}.</p>{_marks(node)}{_paragraphs(node.get("description", ""))}'
        f'<div class="curl"><pre tabindex="0"><code>{line}</code></pre>'
        '<button type="button" class="copy" hidden>Copy</button></div>'
        f"{_parameters(node, components, shapes)}{_body(node, shapes)}{_answers(node, shapes)}{_errors(node)}</article>"
    )


def _marks(node: Node) -> str:
    place, meaning = PLACES[node["x-placement"]]
    schemes = [scheme for alternative in node.get("security", ()) for scheme in alternative]
    credentials = [CREDENTIALS[scheme] for scheme in schemes] or ["No credential"]
    marks = "".join(f"<li>{name}</li>" for name in credentials)
    return f'<ul class="marks"><li class="place" title="{meaning}">{place}</li>{marks}</ul>'


def _parameters(node: Node, components: Node, shapes: Shapes) -> str:
    groups: dict[str, list[str]] = {}
    for given in node.get("parameters", ()):
        one = components["parameters"][given["$ref"].rpartition("/")[2]] if "$ref" in given else given
        facts = shapes.facts(one["schema"], REQUIRED if one.get("required") else "")
        row = field(one["name"], shapes.words(one["schema"]), facts, one.get("description", ""))
        groups.setdefault(one["in"], []).append(row)
    return "".join(f'<h4>{place.title()}</h4><ul class="fields">{"".join(rows)}</ul>' for place, rows in groups.items())


def _body(node: Node, shapes: Shapes) -> str:
    content = node.get("requestBody", {}).get("content", {})
    if not content:
        return ""
    schema = next(iter(content.values()))["schema"]
    media = "".join(f"<code>{escape(name)}</code>" for name in content)
    return _shape("Body", f'{escape(shapes.words(schema))}<span class="media">{media}</span>', shapes.fields(schema))


def _answers(node: Node, shapes: Shapes) -> str:
    parts = []
    for status, answer in node["responses"].items():
        for media, content in answer.get("content", {}).items():
            said = shapes.words(content["schema"]) if media == "application/json" else media
            parts.append(_shape(f"Answer {status}", escape(said), shapes.fields(content["schema"], given=False)))
        if "$ref" not in answer and "content" not in answer:
            parts.append(_shape(f"Answer {status}", escape(answer["description"]), ""))
    return "".join(parts)


def _shape(title: str, said: str, fields: str) -> str:
    head = f'<h4>{title}</h4> <span class="said">{said}</span>'
    if not fields:
        return f'<div class="shape">{head}</div>'
    return f'<details class="shape"><summary>{head}</summary>{fields}</details>'


def _errors(node: Node) -> str:
    refused = [(status, answer["$ref"]) for status, answer in node["responses"].items() if "$ref" in answer]
    if not refused:
        return ""
    codes = {str(status): code for code, status in CODES.items()}
    items = "".join(f"<li><b>{status}</b> <code>{codes[status]}</code></li>" for status, _ in refused)
    return f'<div class="shape"><h4>Errors</h4> <ul class="codes">{items}</ul></div>'


def _method(entry: Entry) -> str:
    return f'<b class="method {entry.method.lower()}">{entry.method}</b>'


def _path(path: str) -> str:
    """A path that may break after a slash, its parameters marked."""
    broken = escape(path).replace("/", "/<wbr>")
    return re.sub(r"\{(\w+)\}", r"<i>{\1}</i>", broken)


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{prose(' '.join(part.split()))}</p>" for part in text.split("\n\n") if part.strip())
