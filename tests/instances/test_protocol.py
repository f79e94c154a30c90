"""The protocol: what is a frame, what is ignored, what is refused, and every answer byte by byte."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.instances import protocol
from app.instances.draft import State
from app.instances.entry import KEY_CHARACTERS, Entry
from app.instances.protocol import (
    OP_ID_CHARACTERS,
    PARSE_ERROR,
    TOO_LARGE,
    Auth,
    Batch,
    Clear,
    Delete,
    ParseError,
    Ping,
    Presence,
    Set,
    parse,
)
from app.instances.queries import Actor
from app.instances.snapshot import Snapshot

ENTRY = Entry("ü", msgspec.Raw(b'{ "a":1.0}'), {"type": "text", "zIndex": 0}, 7, 3)


def refusal(frame: bytes | str, *, binary: bool = False) -> ParseError:
    with pytest.raises(ParseError) as refused:
        parse(frame, binary=binary)
    return refused.value


@pytest.mark.parametrize(
    ("text", "frame"),
    [
        ('{"type":"auth","apiKey":"k"}', Auth("k")),
        ('{"type":"auth"}', Auth("")),
        ('{"type":"set","key":"a","value":1,"timestamp":5}', Set("a", msgspec.Raw(b"1"))),
        ('{"key":"a","type":"set"}', Set("a", msgspec.Raw(b"null"))),
        (
            '{"type":"set","key":"a","attributes":{"x":[1]},"ifSeq":4,"opId":"o","expiresAt":9}',
            Set("a", msgspec.Raw(b"null"), {"x": [1]}, 4, "o", 9),
        ),
        ('{"type":"set","key":"a","attributes":null,"ifSeq":null,"opId":null,"expiresAt":null}', Set("a")),
        ('{"type":"delete","key":"a","ifSeq":0,"opId":"o"}', Delete("a", 0, "o")),
        ('{"type":"clear"}', Clear()),
        ('{"type":"clear","opId":"o"}', Clear("o")),
        ('{"type":"ping","anything":[]}', Ping()),
        ('{"type":"batch","ops":[{"type":"delete","key":"a"}],"opId":"o"}', Batch((Delete("a"),), "o")),
        ('{"type":"batch","ops":[]}', Batch(())),
        ('{"type":"presence","state":{"x": 1}}', Presence(msgspec.Raw(b'{"x": 1}'))),
        ('{"type":"presence"}', Presence(msgspec.Raw(b"null"))),
    ],
)
def test_a_frame_is_read(text: str, frame: protocol.Frame) -> None:
    assert parse(text) == parse(text.encode()) == frame


@pytest.mark.parametrize(
    "text",
    [
        *("5", '"text"', "true", "false", " 0.5 ", "[]", '[{"type":"clear"}]', "{}", '{"type":"subscribe","key":"a"}'),
        *(
            '{"type":5}',
            '{"type":null,"key":"a"}',
            '{"type":["set"]}',
            '{"type":{"set":1}}',
            '{"type":"Set","key":"a"}',
        ),
        *('{"type":"key_updated","key":5}', '{"type":"set","key":"$date","value":"x"}', '{"type":"set","key":"$time"}'),
    ],
)
def test_what_is_no_frame_of_ours_is_ignored(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    "data",
    [
        *(b"null", b" null\n", b"", b" ", b"{", b"[1", b"nul", b"{'type':'set'}", b'{"type":"ping"} x', b"\xff"),
        *(b'{"type":"ping",}', b'{"type":"set","key":"a","value":NaN}', b'{"type":"set","key":"a","value":01}'),
        *(b"[" * 100_000, b'{"type":"set","key":"a","value":' + b"[" * 100_000, b'"\\ud800', b'[NaN,"\\ud800"]'),
        b'{"type":"set","key":"a","value":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    ],
)
def test_what_is_not_json_is_a_parse_error(data: bytes) -> None:
    error = refusal(data)
    assert (error.message, error.code, error.key) == ("Invalid message format", PARSE_ERROR, None)


def test_a_binary_message_is_a_parse_error() -> None:
    assert refusal(b'{"type":"ping"}', binary=True).message == "Invalid message format"


@pytest.mark.parametrize(
    ("text", "key", "op_id"),
    [
        ('{"type":"set"}', None, None),
        ('{"type":"set","key":5,"opId":"o"}', None, "o"),
        ('{"type":"set","key":"a","attributes":[]}', "a", None),
        ('{"type":"set","key":"a","ifSeq":"4","opId":"o"}', "a", "o"),
        ('{"type":"set","key":"a","ifSeq":-1}', "a", None),
        ('{"type":"set","key":"a","expiresAt":1.5}', "a", None),
        ('{"type":"set","key":"a","opId":5}', "a", None),
        ('{"type":"set","key":"a","opId":""}', "a", ""),
        ('{"type":"set","key":"","opId":"o"}', "", "o"),
        ('{"type":"delete","key":"a\\u0000"}', "a\0", None),
        ('{"type":"batch","opId":"o","ops":[{"type":"clear"}]}', None, "o"),
        ('{"type":"batch","ops":{}}', None, None),
        ('{"type":"batch"}', None, None),
        ('{"type":"batch","opId":"o","ops":[{"type":"delete","key":"a"},{"type":"set","key":""}]}', "", "o"),
        ('{"type":"auth","apiKey":5}', None, None),
    ],
)
def test_a_frame_of_the_wrong_shape_is_a_parse_error_that_names_its_key(
    text: str, key: str | None, op_id: str | None
) -> None:
    """Its sender is shown the key as it is: without that it would push the same again for ever."""
    error = refusal(text)
    assert (error.code, error.key, error.op_id) == (PARSE_ERROR, key, op_id)


def test_a_key_or_an_op_id_of_the_greatest_length_is_taken_and_one_longer_is_not() -> None:
    assert parse(json.dumps({"type": "delete", "key": "ü" * KEY_CHARACTERS, "opId": "o" * OP_ID_CHARACTERS}))
    key = "k" * (KEY_CHARACTERS + 1)
    error = refusal(json.dumps({"type": "set", "key": key}))
    assert (error.message, error.code, error.key) == ("Key too long: 1025 characters (max: 1024)", TOO_LARGE, key)
    assert refusal(json.dumps({"type": "delete", "key": "a", "opId": "o" * (OP_ID_CHARACTERS + 1)})).key == "a"


def test_sets_of_the_clock_are_ignored_but_acknowledged() -> None:
    assert parse('{"type":"set","key":"$date","value":1,"opId":"o"}') == Batch((), "o")
    ops = '[{"type":"set","key":"$time"},{"type":"set","key":"a"},{"type":"delete","key":"$date"}]'
    assert parse(f'{{"type":"batch","ops":{ops}}}') == Batch((Set("a"), Delete("$date")))


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (r'"cut \ud83d"', '"cut �"'),
        (r'"\ude00 cut"', '"� cut"'),
        (r'"\ud83d\ude00 \uD83D"', '"😀 �"'),
        (r'["\ud83d", 1.5, {"\udfff": null}]', '["�", 1.5, {"�": null}]'),
        (r'"\\ud83d \ud83d"', r'"\\ud83d �"'),
    ],
)
def test_half_a_surrogate_pair_is_read_as_a_replacement_character(sent: str, read: str) -> None:
    """Clients cut texts in the middle of a character, and what was cut must not end their whole push."""
    frame = parse(f'{{"type":"set","key":"a","value":{sent}}}'.encode())
    assert isinstance(frame, Set) and bytes(frame.value).decode() == read


@given(st.binary(max_size=40) | st.text(max_size=40))
def test_any_message_is_a_frame_ignored_or_a_parse_error(data: bytes | str) -> None:
    try:
        assert parse(data) is None
    except ParseError as error:
        assert error.code == PARSE_ERROR


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
types = st.sampled_from(["auth", "set", "delete", "clear", "ping", "batch", "presence", "other"])


@given(
    st.fixed_dictionaries(
        {"type": types | json_values},
        optional=dict.fromkeys(
            ("key", "value", "attributes", "ifSeq", "opId", "expiresAt", "ops", "state", "apiKey"), json_values
        ),
    )
)
def test_fields_of_any_shape_are_a_frame_ignored_or_a_parse_error(fields: dict[str, object]) -> None:
    text = json.dumps(fields)
    try:
        frame = parse(text)
    except ParseError as error:
        assert error.key is None or error.key == fields["key"]
    else:
        assert frame is None or msgspec.structs.asdict(frame).get("key", "k") != ""


def test_every_frame_has_its_fields_in_order() -> None:
    entry, actor = ENTRY, Actor("ai", "m", "Model")
    told = b'"key":"\xc3\xbc","value":{ "a":1.0},"attributes":{"type":"text","zIndex":0},"updatedBy":"u","timestamp":7,'
    assert protocol.auth_success("i", "u", "write", 4, "e") == (
        b'{"type":"auth_success","instanceId":"i","userId":"u","permission":"write","seq":4,"epoch":"e","limits":{'
        b'"maxValueBytes":2097152,"maxFrameBytes":10485760,"maxKeys":10000,"maxInstanceBytes":67108864,'
        b'"messagesPerSecond":1000,"maxPresenceBytes":2048}}'
    )
    assert protocol.auth_error("No", "EXPIRED") == b'{"type":"auth_error","error":"No","code":"EXPIRED"}'
    assert protocol.key_updated(entry, "u") == b'{"type":"key_updated",' + told + b'"seq":3}'
    assert protocol.key_updated(entry, "u", actor) == (
        b'{"type":"key_updated",' + told + b'"seq":3,"actor":{"kind":"ai","id":"m","name":"Model"}}'
    )
    assert protocol.key_deleted("a", "u", 7, 3) == (
        b'{"type":"key_deleted","key":"a","deletedBy":"u","timestamp":7,"seq":3}'
    )
    assert protocol.cleared("u", 7, 3) == b'{"type":"cleared","clearedBy":"u","timestamp":7,"seq":3}'
    assert protocol.error("No", "CONFLICT") == b'{"type":"error","error":"No","code":"CONFLICT"}'
    assert protocol.error("No", "CONFLICT", "o") == b'{"type":"error","error":"No","code":"CONFLICT","opId":"o"}'
    assert protocol.pong() == b'{"type":"pong"}'
    assert protocol.ack("o", 3) == b'{"type":"ack","opId":"o","seq":3}'
    assert protocol.presence("c", "u", msgspec.Raw(b"null")) == (
        b'{"type":"presence","connectionId":"c","userId":"u","state":null}'
    )
    assert protocol.going_away(250) == b'{"type":"going_away","retryAfterMs":250}'


def test_a_sync_has_every_entry_in_order_with_values_as_sent() -> None:
    last = Entry("a", msgspec.Raw(b"null"), {"type": "text", "zIndex": 1}, 8, 4)
    snapshot = Snapshot("i", State({"a": last, ENTRY.key: ENTRY}, 4, 0), None)
    assert b"".join(snapshot.slices(lambda held: True, None)) == (
        b'{"type":"sync","data":{"\xc3\xbc":{"value":{ "a":1.0},"attributes":{"type":"text","zIndex":0},"updatedAt":7},'
        b'"a":{"value":null,"attributes":{"type":"text","zIndex":1},"updatedAt":8}},"instanceId":"i","seq":4}'
    )
    assert b"".join(protocol.sync([], "i", 0, "epoch")) == (
        b'{"type":"sync","data":{},"instanceId":"i","seq":0,"reason":"epoch"}'
    )
