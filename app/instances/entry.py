"""Entries: the keys of an instance, each a JSON value with its attributes, and what a set makes of them."""

import sys
from collections.abc import Iterable, Mapping

import msgspec

from app.edge.http import decode_json, encode_json
from app.errors import Invalid, TooLarge
from app.instances.attributes import (
    CONTENT_TAGS,
    Attributes,
    Form,
    Lost,
    form_of,
    is_hardcoded,
    keep_hardcoded,
    read_attributes,
    reconcile,
    wire_of,
    z_index_of,
)

KEY_CHARACTERS = 1024
# Every client makes these two of its own clock; they are never stored.
CLOCK_KEYS = frozenset(("$date", "$time"))
# An expiry of this takes the stored one away.
NEVER_MS = 0

_NULL = msgspec.Raw(b"null")
_LARGEST_DOUBLE = int(sys.float_info.max)


class Entry(msgspec.Struct, frozen=True):
    """A key as it is stored and sent; `seq` is 0 until the store gives one.

    `lost` is known only while the instance is open: which side of a disagreement between flags and tags was
    outdated when it was last sent, so that the same push is not an edit once more.
    """

    key: str
    value: msgspec.Raw
    attributes: Attributes
    updated_at_ms: int
    seq: int
    expires_at_ms: int | None = None
    lost: Lost = msgspec.field(default_factory=dict)


def check_key(key: str) -> None:
    """Invalid or TooLarge for what cannot be a key."""
    if not key or "\0" in key:
        raise Invalid("key: expected a text that is not empty and holds no NUL character")
    if len(key) > KEY_CHARACTERS:
        problem = f"Key too long: {len(key)} characters (max: {KEY_CHARACTERS})"
        raise TooLarge(problem, limit=KEY_CHARACTERS, actual=len(key))


def change(
    stored: Entry | None,
    key: str,
    value: msgspec.Raw | None,
    attributes: Mapping[str, object] | None = None,
    *,
    admin: bool,
    now: int,
    expires_at_ms: int | None = None,
) -> Entry | None:
    """The entry after a set over `stored`; None when it changes nothing.

    An absent value is null; absent attributes and an absent expiry are the stored ones, else the default and
    none. Invalid for a value that is not JSON and an attribute of the wrong type. What has expired is for the
    caller to delete first: a set that says nothing of the expiry does not prolong it.
    """
    wanted = _NULL if value is None else value
    if stored is None:
        return _new(key, wanted, attributes or {}, now, expires_at_ms)
    form, lost = _edit(stored, attributes, admin=admin)
    same_value = is_same_json(stored.value, wanted)
    expires = stored.expires_at_ms if expires_at_ms is None else expires_at_ms or None
    if form is None and same_value and expires == stored.expires_at_ms:
        return None
    # A copy, because a Raw as it was decoded keeps the whole frame alive that it came in.
    kept = stored.value if same_value else wanted.copy()
    wire = stored.attributes if attributes is None else wire_of(form or form_of(stored.attributes), attributes)
    return Entry(key, kept, wire, now, 0, expires, lost)


def may_delete(entry: Entry, *, admin: bool) -> bool:
    """A hardcoded key is deleted by an admin only."""
    return admin or not is_hardcoded(entry.attributes)


def sort(entries: Iterable[Entry]) -> list[Entry]:
    """By zIndex, then by name."""
    return sorted(entries, key=lambda entry: (z_index_of(entry.attributes), entry.key))


def has_tag(entry: Entry, tag: str) -> bool:
    """Whether it is one of its content tags."""
    tags = entry.attributes[CONTENT_TAGS]
    return isinstance(tags, list) and tag in tags


def is_expired(entry: Entry, now: int) -> bool:
    return entry.expires_at_ms is not None and entry.expires_at_ms <= now


def size(entry: Entry) -> int:
    """Bytes of its key, value and attributes, as they count towards the instance's limit."""
    return len(entry.key.encode()) + memoryview(entry.value).nbytes + len(encode_json(entry.attributes))


def is_same_json(one: msgspec.Raw, other: msgspec.Raw) -> bool:
    """Whether JavaScript reads the same: 1 is 1.0, true is not 1, the order of members says nothing."""
    return one == other or _is_alike(_read(one), _read(other))


def _new(key: str, value: msgspec.Raw, sent: Mapping[str, object], now: int, expires_at_ms: int | None) -> Entry:
    _read(value)
    form, lost = reconcile(read_attributes(sent), None, {})
    return Entry(key, value.copy(), wire_of(form, sent), now, 0, expires_at_ms or None, lost)


def _edit(stored: Entry, sent: Mapping[str, object] | None, *, admin: bool) -> tuple[Form | None, Lost]:
    """The form where it differs from the stored one, and the sides that have lost."""
    if sent is None:
        return None, stored.lost
    before = form_of(stored.attributes)
    form, lost = reconcile(read_attributes(sent), before, stored.lost)
    if not admin and is_hardcoded(stored.attributes):
        form, lost = keep_hardcoded(form, lost)
    return (None, stored.lost) if form == before else (form, lost)


def _read(value: msgspec.Raw) -> object:
    return decode_json(value, object)


def _is_alike(one: object, other: object) -> bool:
    # Pairs on a list of their own, because JSON may be nested deeper than calls.
    pairs = [(one, other)]
    while pairs:
        left, right = pairs.pop()
        if isinstance(left, dict) and isinstance(right, dict):
            if left.keys() != right.keys():
                return False
            pairs.extend((left[name], right[name]) for name in left)
        elif isinstance(left, list) and isinstance(right, list):
            if len(left) != len(right):
                return False
            pairs.extend(zip(left, right, strict=True))
        elif _plain(left) != _plain(right):
            return False
    return True


def _plain(value: object) -> tuple[type, object]:
    """A scalar with its type; a number as a double, which is all that a client makes of it."""
    if type(value) is int and abs(value) <= _LARGEST_DOUBLE:
        return float, float(value)
    return type(value), value
