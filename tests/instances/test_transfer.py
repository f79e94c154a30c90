"""Transfer: JSON and Markdown, out and in."""

import json

import msgspec
import pytest

from app.edge.clock import parse_instant
from app.errors import Invalid
from app.instances import transfer
from app.instances.markdown import Item
from tests.instances.test_markdown import NOW, imported, made, told

ENTRIES = (made("b", {"x": [1]}, type="json"), made("a", "text", zIndex=2), made("c", None, zIndex=-1, own="`"))


def read(body: bytes, media: str | None = None) -> list[tuple[str, object]]:
    return [(item.key, json.loads(bytes(item.value))) for item in transfer.read(body, media)]


def test_json_holds_each_key_with_its_attributes_in_order() -> None:
    exported = transfer.export("json", "main", ENTRIES, NOW)
    assert list(json.loads(exported)) == ["c", "b", "a"]
    assert json.loads(exported) == {
        each.key: {"value": json.loads(bytes(each.value)), "attributes": each.attributes} for each in ENTRIES
    }


@pytest.mark.parametrize("wanted", transfer.FORMATS)
def test_each_form_is_read_as_it_was_written(wanted: transfer.Format) -> None:
    exported = transfer.export(wanted, "main", ENTRIES, NOW)
    assert transfer.read(exported, None) == transfer.read(exported, transfer.MEDIA[wanted])
    assert sorted(read(exported)) == sorted((key, value) for key, value, _ in told(*ENTRIES))


def test_markdown_is_dated_and_in_order() -> None:
    page = transfer.export("markdown", "My\nnotes", ENTRIES, parse_instant("2026-12-01T23:59:59Z")).decode()
    assert page.startswith("# My notes\n\nExport Date: 2026-12-01\n")
    assert [key for key, _, _ in imported(page)] == ["c", "b", "a"]


def test_attributes_may_be_left_out() -> None:
    assert transfer.read(b'{"a":{"value":1}}', "application/json; charset=utf-8") == [
        Item("a", msgspec.Raw(b"1"), None)
    ]


def test_a_body_that_says_markdown_is_markdown() -> None:
    assert read(b'{"a": 1}', "text/markdown; charset=utf-8") == [("imported_content", '{"a": 1}')]
    assert read(b"  {}", "application/octet-stream") == []


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"{", "Invalid JSON"),
        (b"[]", "got `array`"),
        (b'{"a":1}', "key 'a'"),
        (b'{"a":{}}', "key 'a': value"),
        (b'{"fine":{"value":1},"a":{"value":1,"attributes":[]}}', "key 'a': attributes"),
        (b'{"a":{"value":1,"attributes":{"zIndex":"high"}}}', "key 'a': attributes.zIndex"),
        (b'{"a":{"value":"\\ud800"}}', "Invalid JSON"),
        (b'{"":{"value":1}}', "key ''"),
        (b'{"a\\u0000":{"value":1}}', "NUL"),
    ],
)
def test_json_that_cannot_be_read_is_refused_with_the_key(body: bytes, where: str) -> None:
    with pytest.raises(Invalid, match=where):
        transfer.read(body, "application/json")


def test_bytes_that_are_no_text_are_refused_with_the_line() -> None:
    with pytest.raises(Invalid, match="line 2"):
        transfer.read(b"one\n\xff", "text/markdown")


def test_a_key_that_is_too_long_is_refused_with_its_name() -> None:
    with pytest.raises(Invalid, match="key 'kkkk"):
        transfer.read(f"### {'k' * 2000}\n- **Value**: x\n".encode(), None)
