"""/api/instances/:id/export and /import."""

from collections.abc import Iterator

import httpx
import pytest

from app.instances.protocol import VALUE_BYTES
from app.instances.transfer import IMPORT_BYTES
from tests.projects.conftest import Cast, Person, refused


def send(
    cast: Cast, who: Person, path: str, text: bytes | Iterator[bytes], media: str, **headers: str
) -> httpx.Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return cast.client.post(path, content=text, headers={**who.headers, "Content-Type": media, **sent})


@pytest.mark.parametrize(
    ("form", "media"), [("json", "application/json"), ("markdown", "text/markdown; charset=utf-8")]
)
def test_what_was_exported_comes_back(cast: Cast, alice: Person, place: str, form: str, media: str) -> None:
    cast.call(alice, "PUT", f"{place}/keys/a", {"value": "one\ntwo", "attributes": {"contentTags": ["red"]}})
    cast.call(alice, "PUT", f"{place}/keys/b", {"value": {"n": [1, None]}, "attributes": {"type": "json"}})
    before = cast.get(alice, f"{place}/keys")["keys"]
    exported = cast.call(alice, "GET", f"{place}/export?format={form}")
    assert exported.headers["content-type"] == media
    cast.call(alice, "DELETE", f"{place}/keys/a")
    cast.call(alice, "PUT", f"{place}/keys/extra", {"value": 1})
    answer = send(cast, alice, f"{place}/import?mode=replace", exported.content, media)
    assert answer.json() == {"success": True, "changed": 2, "seq": 6}
    after = cast.get(alice, f"{place}/keys")["keys"]
    assert {key: (held["value"], held["attributes"]) for key, held in after.items()} == {
        key: (held["value"], held["attributes"]) for key, held in before.items()
    }


def test_a_merge_keeps_the_other_keys(cast: Cast, alice: Person, place: str) -> None:
    cast.call(alice, "PUT", f"{place}/keys/kept", {"value": 1})
    assert send(cast, alice, f"{place}/import", b'{"new":{"value":2}}', "application/json").status_code == 200
    assert cast.get(alice, f"{place}/keys")["keys"].keys() == {"kept", "new"}


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b'{"a":{"value":1},"b":{}}', 400),
        (b'{"a":{"value":1},"b":', 400),
        (b'{"a":{"value":1},"b":{"value":"%s"}}' % (b"x" * (2 << 20)), 413),
    ],
    ids=["no value", "cut off", "too large"],
)
def test_an_import_that_is_refused_changes_nothing(
    cast: Cast, alice: Person, place: str, text: bytes, status: int
) -> None:
    assert send(cast, alice, f"{place}/import", text, "application/json").status_code == status
    assert cast.get(alice, f"{place}/keys") == {"keys": {}, "seq": 0}


def file_of(size: int) -> bytes:
    """JSON of `size` bytes whose entries are as large as may be, with blanks at its end."""
    text = b'{"value":"%s"}' % (b"x" * (VALUE_BYTES - 2))
    count = size // VALUE_BYTES - 1
    body = b"{%s}" % b",".join(b'"k%d":%s' % (number, text) for number in range(count))
    return body.ljust(size)


def test_a_file_of_the_largest_size_comes_in_whole(cast: Cast, alice: Person, place: str) -> None:
    answer = send(cast, alice, f"{place}/import", file_of(IMPORT_BYTES), "application/json")
    assert answer.json() == {"success": True, "changed": 31, "seq": 31}
    again = send(cast, alice, f"{place}/import?mode=replace", file_of(IMPORT_BYTES), "application/json")
    assert again.json() == {"success": True, "changed": 0, "seq": 31}


@pytest.mark.parametrize("announced", [True, False])
def test_a_file_above_it_is_refused_with_limit_and_size(cast: Cast, alice: Person, place: str, announced: bool) -> None:
    body = file_of(IMPORT_BYTES + 1)
    sent = body if announced else iter([body[:IMPORT_BYTES], body[IMPORT_BYTES:]])
    answer = send(cast, alice, f"{place}/import", sent, "application/json")
    assert (answer.status_code, answer.json()["limit"], answer.json()["actual"]) == (
        413,
        IMPORT_BYTES,
        IMPORT_BYTES + 1,
    )
    assert cast.get(alice, f"{place}/keys") == {"keys": {}, "seq": 0}


def test_a_file_that_does_not_fit_beside_what_is_there_changes_nothing(cast: Cast, alice: Person, place: str) -> None:
    cast.call(alice, "PUT", f"{place}/keys/mine", {"value": "x" * (VALUE_BYTES - 2)})
    answer = send(cast, alice, f"{place}/import", file_of(IMPORT_BYTES), "application/json")
    assert (answer.status_code, answer.json()["error"].partition(":")[0]) == (413, "Instance too large")
    kept = cast.get(alice, f"{place}/keys")
    assert (kept["keys"].keys(), kept["seq"]) == ({"mine"}, 1)
    replaced = send(cast, alice, f"{place}/import?mode=replace", file_of(IMPORT_BYTES), "application/json")
    assert replaced.json()["changed"] == 32


def test_an_import_that_is_sent_twice_under_one_key_is_made_once(cast: Cast, alice: Person, place: str) -> None:
    sent = b'{"a":{"value":1}}'
    first = send(cast, alice, f"{place}/import", sent, "application/json", Idempotency_Key="once")
    cast.call(alice, "PUT", f"{place}/keys/a", {"value": 2})
    again = send(cast, alice, f"{place}/import", sent, "application/json", Idempotency_Key="once")
    assert (first.status_code, again.status_code, again.json()["seq"]) == (200, 200, first.json()["seq"])
    assert cast.get(alice, f"{place}/keys/a")["value"] == 2


def test_a_writer_does_not_replace_a_hardcoded_key(cast: Cast, alice: Person, place: str) -> None:
    bob = cast.person()
    cast.share(alice, place.removeprefix("/api/"), "write", bob)
    cast.call(alice, "PUT", f"{place}/keys/a", {"value": 1, "attributes": {"hardcoded": True}})
    answer = send(cast, bob, f"{place}/import?mode=replace", b'{"b":{"value":1}}', "application/json")
    assert refused(answer) == (403, "Admin permission required")
    assert cast.get(alice, f"{place}/keys")["keys"].keys() == {"a"}
