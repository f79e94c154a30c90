"""The protocol of `/sync`: what clients may say and every frame that they hear, field by field in order."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Annotated

import msgspec

from app.edge.http import encode_json
from app.instances.entry import CLOCK_KEYS, KEY_CHARACTERS, Entry
from app.instances.queries import Actor

VALUE_BYTES = 2 << 20
FRAME_BYTES = 10 << 20
KEYS = 10_000
INSTANCE_BYTES = 64 << 20
MESSAGES_PER_SECOND = 1_000
MESSAGES_BURST = 10_000
PRESENCE_BYTES = 2 << 10
OP_ID_CHARACTERS = 64

PARSE_ERROR, NO_PERMISSION, TOO_LARGE = "PARSE_ERROR", "NO_PERMISSION", "TOO_LARGE"
RATE_LIMITED, CONFLICT, UNAVAILABLE = "RATE_LIMITED", "CONFLICT", "UNAVAILABLE"
INVALID_KEY, EXPIRED, NO_ACCESS = "INVALID_KEY", "EXPIRED", "NO_ACCESS"
INSTANCE_NOT_FOUND = "INSTANCE_NOT_FOUND"

OpId = Annotated[str, msgspec.Meta(min_length=1, max_length=OP_ID_CHARACTERS)]
Whole = Annotated[int, msgspec.Meta(ge=0)]

NULL = msgspec.Raw(b"null")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class Limits(msgspec.Struct, frozen=True, rename="camel"):
    """What `auth_success` tells of the bounds."""

    max_value_bytes: int = VALUE_BYTES
    max_frame_bytes: int = FRAME_BYTES
    max_keys: int = KEYS
    max_instance_bytes: int = INSTANCE_BYTES
    messages_per_second: int = MESSAGES_PER_SECOND
    max_presence_bytes: int = PRESENCE_BYTES


LIMITS = Limits()


class ParseError(Exception):
    """A frame that says nothing that can be done. `key` and `op_id` are what could still be read of it."""

    def __init__(
        self,
        message: str = "Invalid message format",
        code: str = PARSE_ERROR,
        key: str | None = None,
        op_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.key = key
        self.op_id = op_id


class _Said(msgspec.Struct, frozen=True, rename="camel", tag_field="type"):
    """One frame of a client; what it does not name is ignored."""


class Auth(_Said, tag="auth", frozen=True):
    api_key: str = ""


class Set(_Said, tag="set", frozen=True):
    """No value is null; no attributes and no expiry are the stored ones."""

    key: str
    value: msgspec.Raw = NULL
    attributes: dict[str, object] | None = None
    if_seq: Whole | None = None
    op_id: OpId | None = None
    expires_at: Whole | None = None


class Delete(_Said, tag="delete", frozen=True):
    key: str
    if_seq: Whole | None = None
    op_id: OpId | None = None


class Clear(_Said, tag="clear", frozen=True):
    op_id: OpId | None = None


class Ping(_Said, tag="ping", frozen=True):
    pass


class Batch(_Said, tag="batch", frozen=True):
    """All of it or nothing."""

    ops: tuple[Set | Delete, ...]
    op_id: OpId | None = None


class Presence(_Said, tag="presence", frozen=True):
    state: msgspec.Raw = NULL


Frame = Auth | Set | Delete | Clear | Ping | Batch | Presence

_TYPES = ("auth", "set", "delete", "clear", "ping", "batch", "presence")
_decode_frame = msgspec.json.Decoder(Frame).decode
_decode_any = msgspec.json.Decoder(object).decode


def parse(data: bytes | str, *, binary: bool = False) -> Frame | None:
    """What a client says; None for what is ignored. ParseError for what is no frame."""
    if binary:
        raise ParseError
    try:
        frame = _decode_frame(data)
    except msgspec.ValidationError:
        _check_ignored(data)
        return None
    except (ValueError, RecursionError):
        return parse(_mend(data))
    return _checked(frame)


def _checked(frame: Frame) -> Frame | None:
    if isinstance(frame, Set):
        _check_key(frame.key, frame.op_id)
        if frame.key not in CLOCK_KEYS:
            return frame
        # Ignored, but whoever waits for an acknowledgement gets one: nothing, done atomically.
        return Batch((), frame.op_id) if frame.op_id else None
    if isinstance(frame, Delete):
        _check_key(frame.key, frame.op_id)
    elif isinstance(frame, Batch):
        for op in frame.ops:
            _check_key(op.key, frame.op_id)
        if any(_is_of_the_clock(op) for op in frame.ops):
            return Batch(tuple(op for op in frame.ops if not _is_of_the_clock(op)), frame.op_id)
    return frame


def _is_of_the_clock(op: Set | Delete) -> bool:
    return isinstance(op, Set) and op.key in CLOCK_KEYS


def _check_key(key: str, op_id: str | None) -> None:
    if not key or "\0" in key:
        raise ParseError(key=key, op_id=op_id)
    if len(key) > KEY_CHARACTERS:
        problem = f"Key too long: {len(key)} characters (max: {KEY_CHARACTERS})"
        raise ParseError(problem, TOO_LARGE, key, op_id)


def _check_ignored(data: bytes | str) -> None:
    """ParseError for JSON that is meant to be a frame and is none. A scalar or an unknown type is not."""
    try:
        said = _decode_any(data)
    except (ValueError, RecursionError):
        raise ParseError from None
    if said is None:
        raise ParseError
    if isinstance(said, dict) and said.get("type") in _TYPES:
        key, op_id = said.get("key"), said.get("opId")
        raise ParseError(key=key if isinstance(key, str) else None, op_id=op_id if isinstance(op_id, str) else None)


def _mend(data: bytes | str) -> str:
    """The same JSON with U+FFFD for each half of a surrogate pair; ParseError when that was not what is wrong.

    Clients cut texts between the halves. Refused, they would send them again for ever; no other program here
    could read them.
    """
    try:
        text = data.decode() if isinstance(data, bytes) else data
        if not _SURROGATE.search(text):
            raise ParseError
        same = json.dumps(json.loads(text), ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        raise ParseError from None
    mended = same.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if mended == same:
        raise ParseError
    return mended


def auth_success(instance_id: str, user_id: str, permission: str, seq: int, epoch: str) -> bytes:
    """`permission` is read, write or admin."""
    return encode_json(
        {
            "type": "auth_success",
            "instanceId": instance_id,
            "userId": user_id,
            "permission": permission,
            "seq": seq,
            "epoch": epoch,
            "limits": LIMITS,
        }
    )


def auth_error(message: str, code: str) -> bytes:
    return encode_json({"type": "auth_error", "error": message, "code": code})


def sync(entries: Iterable[bytes], instance_id: str, seq: int, reason: str | None = None) -> Iterator[bytes]:
    """Everything, piece by piece: `entries` are encoded by `sync_entry`, in order. `reason` says why it is not what
    was missed: epoch, retention or ahead."""
    between = b'{"type":"sync","data":{'
    for encoded in entries:
        yield between
        yield encoded
        between = b","
    if between != b",":
        yield between
    last: dict[str, object] = {"instanceId": instance_id, "seq": seq}
    if reason is not None:
        last["reason"] = reason
    yield b"}," + encode_json(last)[1:]


def sync_entry(entry: Entry) -> bytes:
    """One member of `sync`'s data."""
    held = {"value": entry.value, "attributes": entry.attributes, "updatedAt": entry.updated_at_ms}
    return encode_json(entry.key) + b":" + encode_json(held)


def key_updated(entry: Entry, updated_by: str, actor: Actor | None = None) -> bytes:
    frame = {
        "type": "key_updated",
        "key": entry.key,
        "value": entry.value,
        "attributes": entry.attributes,
        "updatedBy": updated_by,
        "timestamp": entry.updated_at_ms,
        "seq": entry.seq,
    }
    return encode_json(frame | _told(actor))


def key_deleted(key: str, deleted_by: str, now: int, seq: int, actor: Actor | None = None) -> bytes:
    frame = {"type": "key_deleted", "key": key, "deletedBy": deleted_by, "timestamp": now, "seq": seq}
    return encode_json(frame | _told(actor))


def cleared(cleared_by: str, now: int, seq: int, actor: Actor | None = None) -> bytes:
    frame = {"type": "cleared", "clearedBy": cleared_by, "timestamp": now, "seq": seq}
    return encode_json(frame | _told(actor))


def error(message: str, code: str, op_id: str | None = None) -> bytes:
    """A refusal; it names the operation where the refused frame did."""
    frame = {"type": "error", "error": message, "code": code}
    return encode_json(frame if op_id is None else frame | {"opId": op_id})


def pong() -> bytes:
    return b'{"type":"pong"}'


def ack(op_id: str, seq: int) -> bytes:
    return encode_json({"type": "ack", "opId": op_id, "seq": seq})


def presence(connection_id: str, user_id: str, state: msgspec.Raw) -> bytes:
    """`state` is null on leaving."""
    return encode_json({"type": "presence", "connectionId": connection_id, "userId": user_id, "state": state})


def going_away(retry_after_ms: int) -> bytes:
    return encode_json({"type": "going_away", "retryAfterMs": retry_after_ms})


def _told(actor: Actor | None) -> dict[str, object]:
    if actor is None:
        return {}
    named = {} if actor.name is None else {"name": actor.name}
    return {"actor": {"kind": actor.kind, "id": actor.id, **named}}
