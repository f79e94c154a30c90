"""Markdown: what is exported is imported as it was; pages of older versions and of people are read too."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.edge.http import encode_json
from app.errors import Invalid
from app.instances import entry, markdown, markdown_page
from app.instances.entry import Entry
from app.instances.markdown import label

NOW = 1_793_491_200_000
DAY = "2026-12-01"


def made(key: str, value: object, **attributes: object) -> Entry:
    stored = entry.change(None, key, msgspec.Raw(encode_json(value)), attributes, admin=True, now=NOW)
    assert stored is not None
    return stored


def written(*entries: Entry, name: str = "main") -> str:
    return markdown.write(name, entries, DAY)


def imported(text: str) -> list[tuple[str, object, dict[str, object]]]:
    """What an import into an empty instance leaves there."""
    stored = [
        entry.change(None, item.key, item.value, item.attributes, admin=True, now=NOW)
        for item in markdown_page.read(text)
    ]
    return told(*(each for each in stored if each is not None))


def told(*entries: Entry) -> list[tuple[str, object, dict[str, object]]]:
    return [(each.key, msgspec.json.decode(each.value), each.attributes) for each in entries]


def test_a_page_looks_as_the_clients_write_it() -> None:
    page = written(
        made("greeting", "Hello\nworld", systemTags=["SystemPrompt", "LLMWrite"], tags=["a", "b"], zIndex=3),
        made("settings", {"theme": "dark"}, type="json", systemTags=["LLMWrite", "protected"]),
        made("photo", "aGVsbG8=", type="image", contentType="image/png", systemTags=["LLMRead", "readonly"]),
        name="My notes",
    )
    assert page == (
        "# My notes\n\nExport Date: 2026-12-01\n\n---\n\n## Keys & Values\n\n"
        "### greeting\n- **System Tags**: `SystemPrompt, LLMWrite`\n- **Z-Index**: `3`\n- **Tags**: `a`, `b`\n"
        "- **Value**:\n```\nHello\nworld\n```\n\n"
        "### settings\n- **Type**: `json`\n- **System Tags**: `LLMWrite, protected`\n"
        '- **Value**:\n```json\n{\n  "theme": "dark"\n}\n```\n\n'
        "### photo\n- **Type**: `image`\n- **System Tags**: `LLMRead, readonly`\n- **Content Type**: `image/png`\n"
        "- **Value**: [See Appendix A]\n\n"
        "---\n\n## Appendix: Binary Data\n\n"
        "### Appendix A: photo\n- **Type**: `image`\n- **Content Type**: `image/png`\n"
        "- **Base64 Data**:\n```\naGVsbG8=\n```\n"
    )


LINES_OF_THE_FORMAT = (
    "```", "````json", "### key", "## Appendix: Binary Data", "### Appendix A: x", "- **Value**: x", "---",
)  # fmt: skip
ODD_CHARACTERS = (
    "\r\n", "\n", "\r", "\u2028", "\x85", "\x0b", " ", "\t", "", "ü", "🙂", "\ufeff", "`", '"', "a",
)  # fmt: skip
TEXTS = st.one_of(
    st.text(),
    st.lists(
        st.sampled_from((*LINES_OF_THE_FORMAT, *ODD_CHARACTERS)),
        max_size=8,
    ).map("\n".join),
    st.binary(max_size=40).map(lambda data: "data:image/png;base64," + data.hex()),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, width=32), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)
TAGS = st.lists(st.one_of(TEXTS, st.sampled_from(["a", "a, b", "`", " x "])), max_size=3)
SYSTEM_TAGS = st.lists(
    st.one_of(
        st.sampled_from(
            ["SystemPrompt", "prompt", "LLMRead", "LLMWrite", "readonly", "protected", "ApplyTemplate", "template"]
        ),
        TEXTS,
    ),
    max_size=5,
)
ATTRIBUTES = st.fixed_dictionaries(
    {},
    optional={
        "type": st.one_of(st.sampled_from(["text", "json", "image", "file", "markdown", "document", ""]), TEXTS),
        "contentType": st.one_of(st.none(), st.just("image/png"), TEXTS),
        "systemTags": SYSTEM_TAGS,
        "tags": TAGS,
        "contentTags": TAGS,
        "zIndex": st.one_of(st.integers(-10, 10), st.floats(allow_nan=False, allow_infinity=False)),
        "readonly": st.booleans(),
        "visible": st.booleans(),
        "hardcoded": st.booleans(),
        "template": st.booleans(),
        "custom": VALUES,
        "other `name`": VALUES,
    },
)
KEYS = TEXTS.filter(lambda text: 0 < len(text) < 200 and "\0" not in text)


@settings(max_examples=400, deadline=None, database=None)
@given(shapes=st.dictionaries(KEYS, st.tuples(VALUES, ATTRIBUTES), max_size=4))
def test_import_gives_back_exactly_what_was_exported(shapes: dict[str, tuple[object, dict[str, object]]]) -> None:
    entries = [made(key, value, **attributes) for key, (value, attributes) in shapes.items()]
    assert encode_json(imported(written(*entries))) == encode_json(told(*entries))


def test_a_number_keeps_its_form() -> None:
    stored = made("n", None)
    precise = Entry("n", msgspec.Raw(b"[1.0,12345678901234567890,1E400]"), stored.attributes, NOW, 0)
    (item,) = markdown_page.read(written(precise))
    assert bytes(item.value) == b"[1.0,12345678901234567890,1E400]"


@pytest.mark.parametrize("content", [b"aGVsbG8=", b"data:image/png;base64,aGVsbG8="])
def test_thirty_images_have_thirty_appendices(content: bytes) -> None:
    entries = [made(f"image {number}", f"{content.decode()}{number}", type="image") for number in range(30)]
    page = written(*entries)
    assert "### Appendix Z: image 25" in page
    assert "### Appendix AD: image 29" in page
    assert imported(page) == told(*entries)


def test_labels_go_on_after_z() -> None:
    assert [label(number) for number in (0, 25, 26, 27, 51, 52, 701, 702)] == [
        "A", "Z", "AA", "AB", "AZ", "BA", "ZZ", "AAA",
    ]  # fmt: skip


def test_an_image_that_is_no_text_stays_where_it_is() -> None:
    stored = made("photo", None, type="image")
    assert "Appendix" not in written(stored)
    assert imported(written(stored)) == told(stored)


def test_an_empty_instance_is_exported_as_one() -> None:
    assert markdown_page.read(written()) == []


def test_a_page_saved_with_other_line_ends_reads_the_same() -> None:
    stored = made("a", "one\ntwo", tags=["x"])
    assert imported(written(stored).replace("\n", "\r\n")) == told(stored)


OLD = """# MindCache STM Export

Export Date: 2025-06-01

---

## STM Entries

### name
- **Type**: `text`
- **Readonly**: `false`
- **Visible**: `true`
- **Template**: `true`
- **Tags**: `a`, `b`
- **Value**: Ada

### profile
- **Type**: `json`
- **Readonly**: `true`
- **Visible**: `false`
- **Template**: `false`
- **Value**:
```json
{"age": 36}
```

### count
- **Type**: `json`
- **Value**: [1, 2]

### poem
- **Value**: first line
second line

- a list **here**

---

### photo
- **Type**: `image`
- **Content Type**: `image/jpeg`
- **Value**: [See Appendix A]

---

## Appendix: Binary Data

### Appendix A: photo
- **Type**: `image`
- **Base64 Data**:
```
/9j/4AAQ
```

---

*End of MindCache Export*
"""


def test_the_page_of_an_older_version_is_read() -> None:
    read = {key: (value, attributes) for key, value, attributes in imported(OLD)}
    assert {key: value for key, (value, _) in read.items()} == {
        "name": "Ada",
        "profile": {"age": 36},
        "count": [1, 2],
        "poem": "first line\nsecond line\n\n- a list **here**",
        "photo": "/9j/4AAQ",
    }
    name, profile = read["name"][1], read["profile"][1]
    assert (name["template"], name["visible"], name["readonly"], name["tags"]) == (True, True, False, ["a", "b"])
    assert (profile["template"], profile["visible"], profile["readonly"]) == (False, False, True)
    assert "readonly" in str(profile["systemTags"])
    assert (read["photo"][1]["type"], read["photo"][1]["contentType"]) == ("image", "image/jpeg")


def test_a_key_without_attributes_gets_the_default_ones() -> None:
    assert imported("### a\n- **Value**: x\n") == told(made("a", "x"))


@pytest.mark.parametrize(
    "text", ["Just a note.\n\n## With a heading\n", "# Title", "```\n### no key\n```", "#### four"]
)
def test_text_without_a_key_becomes_one(text: str) -> None:
    assert imported(text) == told(made("imported_content", text.strip()))


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "empty"),
        (" \n\n", "empty"),
        ("### a\n- **Type**: `text`\n", "line 1: the key 'a' has no value"),
        ("\n### a\n- **Value**:\n```\nnever closed\n", "line 4"),
        ("### a\n- **Type**: `json`\n- **Value**:\n```json\n{oops\n```\n", "line 4"),
        ("### a\n- **Type**: `json`\n- **Value**: {oops\n", "line 3"),
        ("### a\n- **Value**: [See Appendix B]\n", "line 2: the key 'a' names appendix B"),
        ("### a\n- **Value**: 1\n### a\n- **Value**: 2\n", "line 3: the key 'a' is there twice"),
        ("### a\n- **Z-Index**: `high`\n- **Value**: 1\n", "line 2: z-index"),
        ("### a\n- **Attributes**: `{`\n- **Value**: 1\n", "line 2: attributes"),
        ("### a\n- **Value**: 1\n## Appendix: Binary Data\n### Annex\n", "line 4"),
    ],
)
def test_a_page_that_cannot_be_read_is_refused_with_the_line(text: str, where: str) -> None:
    with pytest.raises(Invalid, match=where.replace("[", r"\[")):
        markdown_page.read(text)


@settings(max_examples=300, deadline=None, database=None)
@given(text=TEXTS)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        items = markdown_page.read(text)
    except Invalid:
        return
    assert all(isinstance(msgspec.json.decode(item.value), object) for item in items)
