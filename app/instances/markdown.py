"""Markdown: an instance as a page that people read and edit, and that import reads back exactly.

What the lines of the format cannot say of an entry (an attribute of its own, a tag with a backtick) stands in one
more line, `Attributes`, as JSON.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from app.edge.http import encode_json
from app.instances.attributes import FLAGS, TEXT, Attributes
from app.instances.entry import Entry

HEADING = "## Keys & Values"
APPENDIX = "## Appendix: Binary Data"
IN_APPENDIX = ("image", "file")
FENCE_LEAST = 3

_BACKTICKS = re.compile(r"`{3,}")
_NOT_PLAIN = re.compile(r"[`\x00-\x1f\x7f]")
# Of two spellings of a tag the older, which the newer says too.
_OLDER = frozenset(flag.tags[1] for flag in FLAGS if len(flag.tags) > 1)


class Item(NamedTuple):
    """What an import sets: `value` is JSON, `attributes` as a frame would bring them."""

    key: str
    value: msgspec.Raw
    attributes: Attributes | None


class _Bytes(NamedTuple):
    """What goes to the appendix."""

    key: str
    type: str
    content_type: str | None
    text: str


def write(name: str, entries: Iterable[Entry], day: str) -> str:
    """The page of an instance; `day` is `YYYY-MM-DD`."""
    lines = [f"# {' '.join(name.split())}", "", f"Export Date: {day}", "", "---", "", HEADING, ""]
    appendix: list[_Bytes] = []
    for entry in entries:
        lines += [f"### {write_name(entry.key)}", *_attribute_lines(entry.attributes)]
        lines += [*_value_lines(entry, appendix), ""]
    if appendix:
        lines += ["---", "", APPENDIX, ""]
    for number, held in enumerate(appendix):
        lines += _appendix_lines(label(number), held)
    return "\n".join(lines)


def label(number: int) -> str:
    """0 is A, 25 is Z, 26 is AA."""
    letters = ""
    number += 1
    while number:
        number, letter = divmod(number - 1, 26)
        letters = chr(ord("A") + letter) + letters
    return letters


def write_name(key: str) -> str:
    """A key as it stands in a heading; one that a heading would change is written as JSON."""
    return encode_json(key).decode() if _is_awkward(key) else key


def read_name(text: str) -> str:
    """The key of a heading. A key in quotes is what it says, unless it had to be quoted."""
    if not _is_quoted(text):
        return text
    try:
        key = msgspec.json.decode(text, type=str)
    except msgspec.DecodeError:
        return text
    return key if _is_awkward(key) else text


def described(
    kind: str, content_type: str | None, tags: list[str], z_index: float, system_tags: list[str] | None
) -> Attributes:
    """The attributes that the lines of the format say; without system tags the flags are left open."""
    said: Attributes = {"type": kind, "zIndex": z_index, "tags": tags, "contentTags": tags}
    if content_type is not None:
        said["contentType"] = content_type
    if system_tags is not None:
        said["systemTags"] = both = _spelt_out(system_tags)
        said.update((flag.name, flag.tags[0] in both) for flag in FLAGS)
    return said


def _attribute_lines(attributes: Attributes) -> list[str]:
    kind = _plain(attributes["type"]) or TEXT
    content_type = _plain(attributes.get("contentType"))
    tags = _plain_all(attributes["tags"])
    z_index = attributes["zIndex"]
    assert isinstance(z_index, int | float)
    system_tags = [tag for tag in _plain_all(attributes["systemTags"]) if "," not in tag]
    left = _left_over(attributes, described(kind, content_type, tags, z_index, system_tags))
    lines = {
        "Type": f"`{kind}`" if kind != TEXT else "",
        "System Tags": f"`{', '.join(tag for tag in system_tags if tag not in _OLDER)}`",
        "Z-Index": f"`{encode_json(z_index).decode()}`" if z_index else "",
        "Tags": ", ".join(f"`{tag}`" for tag in tags),
        "Content Type": f"`{content_type}`" if content_type else "",
        "Attributes": f"`{left}`" if left else "",
    }
    return [f"- **{name}**: {text}" for name, text in lines.items() if text]


def _left_over(attributes: Attributes, said: Attributes) -> str:
    """What of the attributes the lines do not say, as JSON without a backtick; empty when they say it all."""
    left = {name: value for name, value in attributes.items() if name not in said or value != said[name]}
    return encode_json(left).decode().replace("`", r"\u0060") if left else ""


def _value_lines(entry: Entry, appendix: list[_Bytes]) -> list[str]:
    text = _text_of(entry.value)
    if text is None:
        pretty = msgspec.json.format(bytes(entry.value), indent=2).decode()
        return ["- **Value**:", *fenced(pretty, "json")]
    kind = entry.attributes["type"]
    if kind not in IN_APPENDIX:
        return ["- **Value**:", *fenced(text)]
    appendix.append(_Bytes(entry.key, str(kind), _plain(entry.attributes.get("contentType")), text))
    return [f"- **Value**: [See Appendix {label(len(appendix) - 1)}]"]


def _appendix_lines(letters: str, held: _Bytes) -> list[str]:
    lines = [f"### Appendix {letters}: {write_name(held.key)}", f"- **Type**: `{held.type}`"]
    if held.content_type:
        lines.append(f"- **Content Type**: `{held.content_type}`")
    return [*lines, "- **Base64 Data**:", *fenced(held.text), ""]


def fenced(text: str, info: str = "") -> list[str]:
    """A block whose fence is longer than any in the text."""
    longest = max(map(len, _BACKTICKS.findall(text)), default=FENCE_LEAST - 1)
    fence = "`" * (longest + 1)
    return [fence + info, text, fence]


def _text_of(value: msgspec.Raw) -> str | None:
    """The text that a JSON value is; None when it is no text."""
    if not bytes(value).lstrip().startswith(b'"'):
        return None
    return msgspec.json.decode(value, type=str)


def _spelt_out(tags: list[str]) -> list[str]:
    """Every spelling wherever there is one of them, the newer first."""
    spelt: list[str] = []
    for tag in tags:
        spellings = next((flag.tags for flag in FLAGS if tag in flag.tags), (tag,))
        spelt += [each for each in spellings if each not in spelt]
    return spelt


def _plain(value: object) -> str | None:
    """A text that a line can hold as it is."""
    if isinstance(value, str) and value and value == value.strip() and not _NOT_PLAIN.search(value):
        return value
    return None


def _plain_all(values: object) -> list[str]:
    return [text for each in values if (text := _plain(each))] if isinstance(values, list) else []


def _is_quoted(text: str) -> bool:
    return len(text) > 1 and text.startswith('"') and text.endswith('"')


def _is_awkward(key: str) -> bool:
    return not key or key != key.strip() or bool(re.search(r"[\x00-\x1f\x7f]", key)) or _is_quoted(key)
