"""Attributes: the reconciled form, in which every flag and its tag say the same.

Clients of some versions edit flags and send tags as they last heard them, others the other way round. Where the
two disagree, the one that differs from what is stored is the edit. A flag has two values, so the same push sent
once more, before its answer was heard, would undo that edit: the side that lost is remembered with the entry.
"""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from app.edge.http import describe_mismatch
from app.errors import Invalid

Attributes = dict[str, object]
Lost = Mapping[str, int]

TEXT = "text"
LLM_READ, LLM_WRITE = "LLMRead", "LLMWrite"
CONTENT_TAGS, TAGS = "contentTags", "tags"
# Above this a number is not a whole one for a client that reads it as a double.
WHOLE_BELOW = 1 << 53


class Flag(NamedTuple):
    """A flag of an entry and the system tags that stand for it, in every spelling."""

    name: str
    tags: tuple[str, ...]
    default: bool = False


READONLY = Flag("readonly", ("readonly",))
VISIBLE = Flag("visible", ("SystemPrompt", "prompt"), True)
HARDCODED = Flag("hardcoded", ("protected",))
TEMPLATE = Flag("template", ("ApplyTemplate", "template"))
FLAGS = (READONLY, VISIBLE, HARDCODED, TEMPLATE)

_SYSTEM_TAGS = frozenset(tag for flag in FLAGS for tag in flag.tags) | {LLM_READ, LLM_WRITE}


class Said(msgspec.Struct, frozen=True, rename="camel"):
    """What a set says of attributes; None is what it leaves open."""

    type: str | None = None
    content_type: str | None = None
    content_tags: tuple[str, ...] | None = None
    system_tags: tuple[str, ...] | None = None
    z_index: float | None = None
    readonly: bool | None = None
    visible: bool | None = None
    hardcoded: bool | None = None
    template: bool | None = None
    tags: tuple[str, ...] | None = None


_KNOWN = frozenset(Said.__struct_encode_fields__)


class Form(NamedTuple):
    """The reconciled form; two that are equal say the same. `flags` are in the order of FLAGS."""

    type: str
    content_type: str | None
    content_tags: tuple[str, ...]
    z_index: float
    flags: tuple[bool, ...]
    llm_read: bool


DEFAULT = Form(TEXT, None, (), 0.0, tuple(flag.default for flag in FLAGS), False)


def read_attributes(sent: Mapping[str, object]) -> Said:
    """Invalid names the attribute that has the wrong type."""
    try:
        return msgspec.convert(sent, Said)
    except msgspec.ValidationError as error:
        raise Invalid(f"attributes.{describe_mismatch(error)}") from error


def form_of(stored: Attributes) -> Form:
    """The form of attributes that `wire_of` has made."""
    said = msgspec.convert(stored, Said)
    return Form(
        said.type or TEXT,
        said.content_type,
        said.content_tags or (),
        said.z_index or 0.0,
        (bool(said.readonly), bool(said.visible), bool(said.hardcoded), bool(said.template)),
        LLM_READ in (said.system_tags or ()),
    )


def reconcile(said: Said, before: Form | None, lost: Lost) -> tuple[Form, Lost]:
    """What is stored once `said` was set over `before`, and the sides that have lost since."""
    kept = dict(lost)
    given = (said.readonly, said.visible, said.hardcoded, said.template)
    stored: tuple[bool | None, ...] = (None,) * len(FLAGS) if before is None else before.flags
    tags = said.system_tags or ()
    form = Form(
        said.type or TEXT,
        said.content_type or None,
        _content_tags(said, () if before is None else before.content_tags, kept),
        said.z_index or 0.0,
        tuple(_flag(flag, given[at], tags, stored[at], kept) for at, flag in enumerate(FLAGS)),
        LLM_READ in tags,
    )
    return form, kept


def wire_of(form: Form, sent: Mapping[str, object]) -> Attributes:
    """As every frame and answer carries them: known ones whole, in all spellings, and unknown ones as sent."""
    wire: Attributes = {"type": form.type}
    if form.content_type is not None:
        wire["contentType"] = form.content_type
    wire[CONTENT_TAGS] = list(form.content_tags)
    wire["systemTags"] = _system_tags(form, sent.get("systemTags"))
    wire["zIndex"] = _number(form.z_index)
    wire.update(zip((flag.name for flag in FLAGS), form.flags, strict=True))
    wire[TAGS] = list(form.content_tags)
    wire.update((name, value) for name, value in sent.items() if name not in _KNOWN)
    return wire


def is_hardcoded(attributes: Attributes) -> bool:
    return attributes[HARDCODED.name] is True


def keep_hardcoded(form: Form, lost: Lost) -> tuple[Form, Lost]:
    """As if the flag had not been cleared; whoever may clear it says the same later, and is heard."""
    at = FLAGS.index(HARDCODED)
    flags = (*form.flags[:at], True, *form.flags[at + 1 :])
    return form._replace(flags=flags), {name: said for name, said in lost.items() if name != HARDCODED.name}


def z_index_of(attributes: Attributes) -> float:
    z_index = attributes["zIndex"]
    assert isinstance(z_index, int | float)
    return z_index


def _flag(flag: Flag, given: bool | None, tags: tuple[str, ...], stored: bool | None, lost: dict[str, int]) -> bool:
    """One flag; `stored` is None for a new entry, where the tags win."""
    if not tags:
        value = given if given is not None else flag.default if stored is None else stored
    else:
        value = any(tag in tags for tag in flag.tags)
        if given is not None and given is not value:
            said = hash(tags)
            if lost.get(flag.name) == said and stored is not None:
                return stored
            lost[flag.name] = said
            return value if stored is None else not stored
    if value is not stored:
        lost.pop(flag.name, None)
    return value


def _content_tags(said: Said, stored: tuple[str, ...], lost: dict[str, int]) -> tuple[str, ...]:
    """`contentTags` and `tags` are one list; the one that differs from the stored list wins, else `contentTags`."""
    ours, theirs = said.content_tags, said.tags
    if ours is None or theirs is None or ours == theirs:
        value = ours if ours is not None else theirs or ()
        if value != stored:
            lost.pop(CONTENT_TAGS, None)
            lost.pop(TAGS, None)
        return value
    if lost.get(CONTENT_TAGS) == hash(ours):
        return theirs
    if lost.get(TAGS) == hash(theirs):
        return ours
    winner, loser = (theirs, CONTENT_TAGS) if ours == stored else (ours, TAGS)
    lost.pop(CONTENT_TAGS, None)
    lost.pop(TAGS, None)
    lost[loser] = hash(ours if loser == CONTENT_TAGS else theirs)
    return winner


def _system_tags(form: Form, sent: object) -> list[str]:
    readonly, visible, hardcoded, template = form.flags
    tags = [*VISIBLE.tags] if visible else []
    if form.llm_read:
        tags.append(LLM_READ)
    tags += READONLY.tags if readonly else (LLM_WRITE,)
    if hardcoded:
        tags += HARDCODED.tags
    if template:
        tags += TEMPLATE.tags
    if isinstance(sent, list | tuple):
        tags += [tag for tag in dict.fromkeys(sent) if tag not in _SYSTEM_TAGS]
    return tags


def _number(z_index: float) -> float:
    return int(z_index) if z_index.is_integer() and abs(z_index) < WHOLE_BELOW else z_index
