"""A Markdown page, read: its keys with their lines and blocks, in the words of every version that has written one."""

import re
from typing import NamedTuple, TypeVar

import msgspec

from app.edge.http import encode_json
from app.errors import Invalid
from app.instances.attributes import TEXT, Attributes
from app.instances.markdown import APPENDIX, HEADING, Item, described, read_name

T = TypeVar("T")

IMPORTED_KEY = "imported_content"
OLD_HEADING = "## STM Entries"
FIELDS = frozenset(
    {
        "type",
        "system tags",
        "z-index",
        "tags",
        "content type",
        "attributes",
        "value",
        "base64 data",
        "readonly",
        "visible",
        "template",
        "hardcoded",
    }
)
HOLDING = ("value", "base64 data")
# The lines of versions that knew no system tags.
OLD_FLAGS = ("readonly", "visible", "template", "hardcoded")

_KEY_LINE = re.compile(r"^### ", re.MULTILINE)
_FIELD = re.compile(r"- \*\*([A-Za-z0-9 -]+)\*\*:\s*(.*)")
_FENCE = re.compile(r" {0,3}(`{3,})\s*([^`\s]*)\s*")
_IN_APPENDIX = re.compile(r"Appendix ([A-Z]+): ?(.*)", re.DOTALL)
_SEE_APPENDIX = re.compile(r"\[See Appendix ([A-Z]+)\]")
_SPAN = re.compile(r"`([^`]*)`")


class Block(NamedTuple):
    """What stands between two fences."""

    line: int
    info: str
    text: str


class Section:
    """A heading with what follows it: lines that name a field, and the value in a block or beside its name."""

    def __init__(self, line: int, heading: str) -> None:
        self.line, self.heading = line, heading
        self.fields: dict[str, tuple[int, str]] = {}
        self.block: Block | None = None
        self.inline: list[str] = []
        self._in_value = False

    def add_line(self, number: int, line: str) -> None:
        field = _FIELD.fullmatch(line.strip())
        if field and (name := field[1].lower()) in FIELDS:
            self.fields[name] = (number, field[2].strip())
            self._in_value = name in HOLDING
            if self._in_value and field[2]:
                self.inline = [field[2]]
        elif self.inline and self._in_value and line.strip() != "---":
            self.inline.append(line)
        else:
            self._in_value = self._in_value and not line.strip()

    def add_block(self, block: Block) -> None:
        if not self._in_value or self.block is not None:
            return
        if self.inline:
            self.inline += ["```" + block.info, block.text, "```"]
        else:
            self.block = block

    def text(self, name: str) -> str | None:
        """What the code span of a field holds, or all of its line."""
        if name not in self.fields:
            return None
        line = self.fields[name][1]
        first, last = line.find("`"), line.rfind("`")
        return line[first + 1 : last] if first < last else line


def read(text: str) -> list[Item]:
    """The entries of a page in its order. Invalid names the line."""
    text = _with_plain_ends(text)
    if not text.strip():
        raise Invalid("The Markdown is empty")
    keys, appendices = _read_sections(text.split("\n")) if _KEY_LINE.search(text) else ([], [])
    if keys or appendices:
        return _read_items(keys, appendices)
    if {HEADING, OLD_HEADING} & set(text.split("\n")):
        return []
    return [Item(IMPORTED_KEY, _as_raw(text.strip()), described(TEXT, None, [], 0, None))]


def _with_plain_ends(text: str) -> str:
    """A page whose every line ends in CRLF was saved so; where only some do, these belong to values."""
    text = text.removeprefix("\ufeff")
    return text.replace("\r\n", "\n") if text.count("\n") == text.count("\r\n") else text


def _read_sections(lines: list[str]) -> tuple[list[Section], list[Section]]:
    """The sections of keys, and those of the appendix."""
    keys: list[Section] = []
    appendices: list[Section] = []
    into, section = keys, None
    at = 0
    while at < len(lines):
        line, number = lines[at], at + 1
        at += 1
        fence = _FENCE.fullmatch(line)
        if line.startswith("### "):
            section = Section(number, line[4:].strip())
            into.append(section)
        elif line.startswith("## "):
            into, section = (appendices if line.strip() == APPENDIX else keys), None
        elif fence:
            block, at = _read_block(lines, number, fence[1], fence[2])
            if section is not None:
                section.add_block(block)
        elif section is not None:
            section.add_line(number, line)
    return keys, appendices


def _read_block(lines: list[str], opened: int, fence: str, info: str) -> tuple[Block, int]:
    """The block that line `opened` begins, and the index of the line after it."""
    for at in range(opened, len(lines)):
        closing = lines[at].strip()
        if len(closing) >= len(fence) and not closing.strip("`"):
            return Block(opened, info, "\n".join(lines[opened:at])), at + 1
    raise Invalid(f"line {opened}: this block has no end")


def _read_items(keys: list[Section], appendices: list[Section]) -> list[Item]:
    held = dict(_read_appendix(section) for section in appendices)
    items: dict[str, Item] = {}
    for section in keys:
        key = read_name(section.heading)
        if key in items:
            raise Invalid(f"line {section.line}: the key {key!r} is there twice")
        attributes = _read_attributes(section)
        items[key] = Item(key, _read_value(section, key, attributes["type"], held), attributes)
    return list(items.values())


def _read_appendix(section: Section) -> tuple[str, str]:
    match = _IN_APPENDIX.fullmatch(section.heading)
    if match is None or section.block is None:
        raise Invalid(f"line {section.line}: expected `### Appendix A: <key>` with a block of data")
    return match[1], section.block.text


def _read_attributes(section: Section) -> Attributes:
    system = section.text("system tags")
    system_tags = [tag.strip() for tag in system.split(",") if tag.strip()] if system is not None else None
    tags = _SPAN.findall(section.fields.get("tags", (0, ""))[1])
    attributes = described(
        section.text("type") or TEXT,
        section.text("content type") or None,
        tags,
        _decode(section, "z-index", float, 0.0),
        system_tags,
    )
    attributes |= {flag: text == "true" for flag in OLD_FLAGS if (text := section.text(flag)) is not None}
    return attributes | _decode(section, "attributes", Attributes, {})


def _decode(section: Section, name: str, shape: type[T], default: T) -> T:
    text = section.text(name)
    if text is None:
        return default
    try:
        return msgspec.json.decode(text, type=shape)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Invalid(f"line {section.fields[name][0]}: {name}: {error}") from error


def _read_value(section: Section, key: str, kind: object, appendices: dict[str, str]) -> msgspec.Raw:
    if section.block is not None:
        block = section.block
        return _read_json(block.text, block.line, key) if block.info == "json" else _as_raw(block.text)
    number = section.fields.get("value", (section.line, ""))[0]
    if "value" not in section.fields:
        raise Invalid(f"line {number}: the key {key!r} has no value")
    text = "\n".join(section.inline).rstrip()
    see = _SEE_APPENDIX.fullmatch(text)
    if see is None:
        return _read_json(text, number, key) if kind == "json" else _as_raw(text)
    if see[1] not in appendices:
        raise Invalid(f"line {number}: the key {key!r} names appendix {see[1]}, which is not there")
    return _as_raw(appendices[see[1]])


def _read_json(text: str, line: int, key: str) -> msgspec.Raw:
    try:
        return msgspec.Raw(msgspec.json.format(text, indent=-1).encode())
    except (msgspec.DecodeError, RecursionError) as error:
        raise Invalid(f"line {line}: the value of {key!r} is not JSON: {error}") from error


def _as_raw(text: str) -> msgspec.Raw:
    return msgspec.Raw(encode_json(text))
