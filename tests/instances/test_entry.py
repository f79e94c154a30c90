"""Entries: what a set makes of one, when it makes nothing of it, and the order that they stand in."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import Invalid, TooLarge
from app.instances.entry import (
    KEY_CHARACTERS,
    NEVER_MS,
    Entry,
    change,
    check_key,
    has_tag,
    is_expired,
    is_same_json,
    may_delete,
    size,
    sort,
)

NOW = 1_764_600_000_000


def raw(text: str) -> msgspec.Raw:
    return msgspec.Raw(text.encode())


def entry(key: str = "a", value: str = "1", **attributes: object) -> Entry:
    made = change(None, key, raw(value), attributes, admin=False, now=NOW)
    assert made is not None
    return made


def test_a_new_entry_has_the_value_as_sent_and_no_seq_yet() -> None:
    made = entry(value='{"b" : [1.0, "\\u00fc"]}')
    assert bytes(made.value) == b'{"b" : [1.0, "\\u00fc"]}'
    assert (made.key, made.updated_at_ms, made.seq, made.expires_at_ms) == ("a", NOW, 0, None)


def test_an_absent_value_is_null() -> None:
    made = change(entry(), "a", None, None, admin=False, now=NOW)
    assert made is not None and bytes(made.value) == b"null"


def test_a_value_of_one_key_does_not_keep_the_frame_that_it_came_in() -> None:
    frame = b'{"value":1,"rest":"' + b"x" * 1000 + b'"}'
    value = msgspec.json.decode(frame, type=dict[str, msgspec.Raw])["value"]
    for stored in (None, entry(value="2")):
        made = change(stored, "a", value, None, admin=False, now=NOW)
        assert made is not None and len(memoryview(made.value).obj) < 10


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "1.0"),
        ("100", "1e2"),
        ("0", "-0"),
        ("9007199254740993", "9007199254740992"),
        ('"\\u00fc"', '"ü"'),
        ('{"a":1,"b":[2]}', '{ "b": [2.0], "a": 1 }'),
        ('{"a":1,"a":2}', '{"a":2}'),
    ],
)
def test_what_javascript_reads_alike_is_no_change(one: str, other: str) -> None:
    assert is_same_json(raw(one), raw(other))
    assert change(entry(value=one), "a", raw(other), None, admin=False, now=NOW + 1) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "true"),
        ("0", "false"),
        ("1", '"1"'),
        ("null", "false"),
        ("null", '""'),
        ("[]", "{}"),
        ("[1,2]", "[2,1]"),
        ("[1]", "[1,1]"),
        ('{"a":1}', '{"a":true}'),
        ('{"a":null}', "{}"),
        ('{"a":[{"b":0}]}', '{"a":[{"b":false}]}'),
        ("1.5", "1.25"),
    ],
)
def test_what_javascript_tells_apart_is_a_change(one: str, other: str) -> None:
    made = change(entry(value=one), "a", raw(other), None, admin=False, now=NOW + 1)
    assert made is not None and bytes(made.value) == other.encode()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_a_value_is_the_same_however_it_is_spelled(value: object) -> None:
    compact, wide = json.dumps(value, ensure_ascii=False), json.dumps(value, indent=1, sort_keys=True)
    assert is_same_json(raw(compact), raw(wide))


def test_values_nested_as_deeply_as_can_be_read_are_compared() -> None:
    deep = "[" * 400 + "%s" + "]" * 400
    assert is_same_json(raw(deep % "1"), raw(deep % "1.0"))
    assert not is_same_json(raw(deep % "1"), raw(deep % "true"))


@pytest.mark.parametrize("value", [b"", b"{", b"NaN", b'"\xff"', b"1e999", b"[" * 100_000])
def test_a_value_that_is_not_json_is_invalid(value: bytes) -> None:
    for stored in (None, entry()):
        with pytest.raises(Invalid):
            change(stored, "a", msgspec.Raw(value), None, admin=False, now=NOW)


def test_hardcoded_is_kept_below_admin_and_the_rest_of_the_write_is_applied() -> None:
    stored = entry(hardcoded=True)
    cleared = stored.attributes | {"hardcoded": False, "systemTags": ["readonly"], "readonly": True}
    by_writer = change(stored, "a", raw("2"), cleared, admin=False, now=NOW)
    assert by_writer is not None
    assert (by_writer.attributes["hardcoded"], by_writer.attributes["readonly"]) == (True, True)
    assert bytes(by_writer.value) == b"2"
    by_admin = change(stored, "a", raw("2"), cleared, admin=True, now=NOW)
    assert by_admin is not None and by_admin.attributes["hardcoded"] is False


def test_an_admin_clears_the_flag_that_a_writer_could_not() -> None:
    stored = entry(hardcoded=True)
    cleared = stored.attributes | {"hardcoded": False, "zIndex": 1}
    by_writer = change(stored, "a", raw("2"), cleared, admin=False, now=NOW)
    assert by_writer is not None and by_writer.attributes["hardcoded"] is True
    assert change(by_writer, "a", raw("2"), cleared, admin=False, now=NOW) is None
    by_admin = change(by_writer, "a", raw("2"), cleared, admin=True, now=NOW)
    assert by_admin is not None and by_admin.attributes["hardcoded"] is False


def test_a_hardcoded_key_is_deleted_by_an_admin_only() -> None:
    assert may_delete(entry(), admin=False)
    assert not may_delete(entry(systemTags=["protected"]), admin=False)
    assert may_delete(entry(systemTags=["protected"]), admin=True)


def test_an_expiry_is_set_kept_moved_and_taken_away() -> None:
    stored = change(None, "a", raw("1"), None, admin=False, now=NOW, expires_at_ms=NOW + 5)
    assert stored is not None and stored.expires_at_ms == NOW + 5
    assert change(stored, "a", raw("1"), None, admin=False, now=NOW) is None
    assert change(stored, "a", raw("1"), None, admin=False, now=NOW, expires_at_ms=NOW + 5) is None
    kept = change(stored, "a", raw("2"), None, admin=False, now=NOW)
    assert kept is not None and kept.expires_at_ms == NOW + 5
    moved = change(stored, "a", raw("1"), None, admin=False, now=NOW, expires_at_ms=NOW + 9)
    assert moved is not None and moved.expires_at_ms == NOW + 9
    freed = change(stored, "a", raw("1"), None, admin=False, now=NOW, expires_at_ms=NEVER_MS)
    assert freed is not None and freed.expires_at_ms is None


def test_an_entry_expires_at_its_instant() -> None:
    stored = change(None, "a", None, None, admin=False, now=NOW, expires_at_ms=NOW + 5)
    assert stored is not None
    assert (is_expired(stored, NOW + 4), is_expired(stored, NOW + 5)) == (False, True)
    assert not is_expired(entry(), NOW * 2)


def test_entries_stand_by_z_index_then_by_name() -> None:
    entries = [entry("b"), entry("c", zIndex=-1), entry("a", zIndex=0.5), entry("a0"), entry("Z")]
    assert [held.key for held in sort(entries)] == ["c", "Z", "a0", "b", "a"]


def test_a_tag_is_a_content_tag() -> None:
    tagged = entry(contentTags=["x", "y"], systemTags=["protected"])
    assert has_tag(tagged, "x") and not has_tag(tagged, "protected") and not has_tag(entry(), "x")


def test_the_size_counts_key_value_and_attributes_in_bytes() -> None:
    assert size(entry("ü", '"ü"')) - size(entry("u", "1")) == 1 + len('"ü"'.encode()) - 1
    assert size(entry(colour="red")) - size(entry()) == len(',"colour":"red"')


@pytest.mark.parametrize("key", ["", "a\0b"])
def test_what_cannot_be_a_key_is_invalid(key: str) -> None:
    with pytest.raises(Invalid):
        check_key(key)


def test_a_key_of_1024_characters_is_the_longest() -> None:
    check_key("ü" * KEY_CHARACTERS)
    with pytest.raises(TooLarge) as refused:
        check_key("k" * (KEY_CHARACTERS + 1))
    assert refused.value.fields == {"limit": KEY_CHARACTERS, "actual": KEY_CHARACTERS + 1}
