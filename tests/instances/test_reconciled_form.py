"""The reconciled form: a push that says nothing new changes nothing, and no edit of any version is lost."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import Invalid
from app.instances.attributes import FLAGS
from app.instances.entry import Entry, change
from app.instances.protocol import Set, key_updated, parse
from tests.instances.sdk_cores import CORES, Core, Renamed, Tagged, Tags

KEYS = ("a", "b", "c")
VALUE = msgspec.Raw(b'"v"')


def set_over(stored: Entry | None, attributes: dict[str, Any] | None, *, admin: bool = False) -> Entry | None:
    return change(stored, "a", VALUE, attributes, admin=admin, now=1)


def made(*sets: dict[str, Any] | None) -> dict[str, Any]:
    """The attributes after these sets, each of which changes something."""
    entry = None
    for attributes in sets:
        entry = set_over(entry, attributes)
        assert entry is not None
    assert entry is not None
    return entry.attributes


DEFAULT = {
    "type": "text",
    "contentTags": [],
    "systemTags": ["SystemPrompt", "prompt", "LLMWrite"],
    "zIndex": 0,
    "readonly": False,
    "visible": True,
    "hardcoded": False,
    "template": False,
    "tags": [],
}


@pytest.mark.parametrize("attributes", [None, {}, {"systemTags": []}, {"type": "", "contentType": "", "zIndex": None}])
def test_what_is_not_said_is_the_default(attributes: dict[str, Any] | None) -> None:
    assert made(attributes) == DEFAULT


def test_all_is_told_in_every_spelling_and_unknown_attributes_as_sent() -> None:
    said = {
        "type": "recipe",
        "contentType": "image/png",
        "contentTags": ["x", "y"],
        "systemTags": ["ApplyTemplate", "SystemPrompt", "LLMRead", "protected", "readonly", "mine"],
        "zIndex": 3.5,
        "colour": {"deep": [1, True]},
    }
    assert made(said) == {
        "type": "recipe",
        "contentType": "image/png",
        "contentTags": ["x", "y"],
        "systemTags": [
            *("SystemPrompt", "prompt", "LLMRead", "readonly", "protected", "ApplyTemplate", "template", "mine"),
        ],
        "zIndex": 3.5,
        "readonly": True,
        "visible": True,
        "hardcoded": True,
        "template": True,
        "tags": ["x", "y"],
        "colour": {"deep": [1, True]},
    }


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
@pytest.mark.parametrize("spelling", [0, -1])
def test_a_tag_sets_its_flag_and_a_flag_its_tags(flag: Any, spelling: int) -> None:
    by_tag = made({"systemTags": ["LLMWrite", flag.tags[spelling]]})
    by_flag = made({flag.name: True})
    assert by_tag[flag.name] is by_flag[flag.name] is True
    assert set(flag.tags) <= set(by_tag["systemTags"]) and set(flag.tags) <= set(by_flag["systemTags"])


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
@pytest.mark.parametrize("stored", [True, False])
def test_where_flag_and_tags_disagree_the_side_that_differs_from_the_stored_one_wins(flag: Any, stored: bool) -> None:
    entry = set_over(None, {flag.name: stored})
    assert entry is not None
    other = set_over(None, {flag.name: not stored})
    assert other is not None
    by_flag = set_over(entry, entry.attributes | {flag.name: not stored}, admin=True)
    by_tag = set_over(entry, entry.attributes | {"systemTags": other.attributes["systemTags"]}, admin=True)
    assert by_flag is not None and by_flag.attributes == other.attributes
    assert by_tag is not None and by_tag.attributes == other.attributes


def test_for_a_new_entry_the_tags_win() -> None:
    attributes = made({"readonly": True, "visible": False, "systemTags": ["SystemPrompt", "LLMWrite"]})
    assert (attributes["readonly"], attributes["visible"]) == (False, True)


def test_an_absent_flag_keeps_its_stored_value_and_all_else_is_replaced() -> None:
    first = {"readonly": True, "zIndex": 4, "contentTags": ["x"], "contentType": "a/b", "colour": "red", "type": "json"}
    assert made(first, {"visible": False}) == DEFAULT | {
        "readonly": True,
        "visible": False,
        "systemTags": ["readonly"],
    }


def test_a_set_without_attributes_keeps_the_stored_ones() -> None:
    stored = set_over(None, {"readonly": True, "colour": "red"})
    assert stored is not None
    after = change(stored, "a", msgspec.Raw(b"2"), None, admin=False, now=2)
    assert after is not None and after.attributes == stored.attributes


@pytest.mark.parametrize(
    ("content_tags", "tags", "wins"),
    [
        (["s"], ["new"], ["new"]),
        (["new"], ["s"], ["new"]),
        (["one"], ["two"], ["one"]),
        (None, ["new"], ["new"]),
        (["new"], None, ["new"]),
        ([], ["s"], []),
        (["s"], [], []),
    ],
)
def test_of_tags_and_content_tags_the_one_that_was_edited_wins(
    content_tags: list[str] | None, tags: list[str] | None, wins: list[str]
) -> None:
    said = {"contentTags": content_tags, "tags": tags}
    attributes = made({"contentTags": ["s"]}, {name: value for name, value in said.items() if value is not None})
    assert attributes["contentTags"] == attributes["tags"] == wins


def test_the_same_push_sent_once_more_before_its_answer_was_heard_is_not_an_edit() -> None:
    """Otherwise every second push of a client of version 2.0 would take its user's edit back."""
    stored = set_over(None, None)
    assert stored is not None
    said = stored.attributes | {"readonly": True, "tags": ["new"]}
    edited = set_over(stored, said)
    assert edited is not None and edited.attributes["readonly"] is True and edited.attributes["tags"] == ["new"]
    assert set_over(edited, said) is None
    both = set_over(edited, said | {"visible": False, "tags": ["new", "newer"]})
    assert both is not None
    assert (both.attributes["readonly"], both.attributes["visible"]) == (True, False)
    assert both.attributes["tags"] == ["new", "newer"]
    back = set_over(both, both.attributes | {"systemTags": ["SystemPrompt", "LLMWrite"]})
    assert back is not None and (back.attributes["readonly"], back.attributes["visible"]) == (False, True)


def test_the_same_push_is_an_edit_again_once_somebody_else_has_changed_what_it_edited() -> None:
    stored = set_over(None, None)
    assert stored is not None
    said = stored.attributes | {"readonly": True, "tags": ["new"]}
    edited = set_over(stored, said)
    undone = set_over(edited, stored.attributes)
    again = set_over(undone, said)
    assert edited is not None and again is not None
    assert again.attributes == edited.attributes
    other = set_over(edited, {"tags": ["other"]})
    emptied = set_over(other, {"tags": ["other"], "contentTags": []})
    assert emptied is not None and emptied.attributes["tags"] == []


def test_a_new_entry_whose_flags_and_tags_disagree_is_not_changed_by_the_same_push() -> None:
    said = {"readonly": True, "systemTags": ["SystemPrompt", "LLMWrite"], "tags": ["x"], "contentTags": ["y"]}
    stored = set_over(None, said)
    assert set_over(stored, said) is None


@pytest.mark.parametrize(
    ("attributes", "named"),
    [
        ({"tags": "x"}, "tags"),
        ({"tags": ["x", 1]}, "tags"),
        ({"contentTags": {"x": 1}}, "contentTags"),
        ({"systemTags": [None]}, "systemTags"),
        ({"systemTags": 5}, "systemTags"),
        ({"zIndex": "3"}, "zIndex"),
        ({"zIndex": True}, "zIndex"),
        ({"zIndex": 10**400}, "zIndex"),
        ({"readonly": 1}, "readonly"),
        ({"visible": "true"}, "visible"),
        ({"hardcoded": []}, "hardcoded"),
        ({"template": 0.0}, "template"),
        ({"type": 5}, "type"),
        ({"contentType": False}, "contentType"),
    ],
)
def test_an_attribute_of_the_wrong_type_is_refused_by_name(attributes: dict[str, Any], named: str) -> None:
    for stored in (None, set_over(None, None)):
        with pytest.raises(Invalid, match=rf"^attributes\.{named}\b"):
            set_over(stored, attributes)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
tag_lists = st.none() | st.lists(
    st.sampled_from(["SystemPrompt", "prompt", "readonly", "LLMWrite", "LLMRead", "protected", "template", "x"]),
    max_size=4,
)
shapes = st.fixed_dictionaries(
    {},
    optional={
        **{flag.name: st.none() | st.booleans() for flag in FLAGS},
        **dict.fromkeys(("tags", "contentTags", "systemTags"), tag_lists),
        "zIndex": st.none() | st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False),
        "type": st.none() | st.text(max_size=5),
        "contentType": st.none() | st.text(max_size=5),
        "colour": json_values,
    },
)


@given(st.lists(shapes | st.none(), min_size=1, max_size=6), st.booleans())
def test_what_was_told_or_just_pushed_changes_nothing_when_it_is_pushed(
    sets: list[dict[str, Any] | None], admin: bool
) -> None:
    entry: Entry | None = None
    for attributes in sets:
        entry = set_over(entry, attributes, admin=admin) or entry
        assert entry is not None
        assert set_over(entry, attributes, admin=admin) is None
        told = json.loads(key_updated(entry, "u"))["attributes"]
        assert set_over(entry, told, admin=admin) is None
        assert told["tags"] == told["contentTags"] and told["systemTags"]


@given(st.lists(json_values, min_size=2, max_size=2))
def test_a_set_of_any_shape_is_an_entry_or_invalid(said: list[Any]) -> None:
    stored, names = set_over(None, None), ("tags", "contentTags", "systemTags", "zIndex", "visible", "type")
    for name in names:
        try:
            entry = set_over(stored, {name: said[0], "colour": said[1]})
        except Invalid as refused:
            assert name in refused.message
        else:
            assert entry is None or entry.attributes["colour"] == said[1]


class Hub:
    """As much of a server as this needs: it changes entries and tells everybody, the sender included."""

    def __init__(self, cores: list[Core]) -> None:
        self.entries: dict[str, Entry] = {}
        self.cores = cores

    def push(self, core: Core) -> list[bytes]:
        """The frames that all are to hear of one push of everything."""
        frames = []
        for pushed in core.pushes():
            said = parse(pushed)
            assert isinstance(said, Set)
            stored = self.entries.get(said.key)
            entry = change(stored, said.key, said.value, said.attributes, admin=False, now=1)
            if entry is not None:
                self.entries[said.key] = entry
                frames.append(key_updated(entry, "u"))
        return frames

    def tell(self, frames: list[bytes]) -> None:
        for core in self.cores:
            for frame in frames:
                heard = json.loads(frame)
                core.hear(heard["key"], heard["value"], heard["attributes"])

    def view(self, key: str) -> dict[str, Any]:
        entry = self.entries[key]
        attributes = entry.attributes
        assert isinstance(attributes["systemTags"], list)
        return {
            "value": msgspec.json.decode(entry.value),
            **{flag: attributes[flag] for flag in ("readonly", "visible", "template")},
            "llm_read": "LLMRead" in attributes["systemTags"],
            "tags": attributes["tags"],
            "z_index": attributes["zIndex"],
        }


class User:
    """Edits at random through one core, and knows what everybody should see afterwards."""

    def __init__(self, core: Core, draw: Any) -> None:
        self.core = core
        self.draw = draw

    def edit(self, expected: dict[str, dict[str, Any]]) -> None:
        key = self.draw(st.sampled_from(KEYS))
        if key not in self.core.held:
            self.core.set_value(key, "new")
            expected[key] = dict.fromkeys(("readonly", "template", "llm_read"), False)
            expected[key] |= {"value": "new", "visible": True, "tags": [], "z_index": 0}
            return
        kinds = ["value", "tag"] + ["flag"] * bool(self.core.flags) + ["z"] * self.core.has_z_index
        getattr(self, self.draw(st.sampled_from(kinds)))(key, expected[key])

    def value(self, key: str, expected: dict[str, Any]) -> None:
        expected["value"] = self.draw(st.sampled_from([1, True, "1", None, {"a": [1.5, "ü"]}, []]))
        self.core.set_value(key, expected["value"])

    def tag(self, key: str, expected: dict[str, Any]) -> None:
        tag = self.draw(st.sampled_from(["x", "y"]))
        expected["tags"] = (
            [held for held in expected["tags"] if held != tag] if tag in expected["tags"] else [*expected["tags"], tag]
        )
        self.core.toggle_tag(key, tag)

    def flag(self, key: str, expected: dict[str, Any]) -> None:
        flag = self.draw(st.sampled_from(self.core.flags))
        expected[flag] = self.draw(st.booleans())
        self.core.set_flag(key, flag, expected[flag])
        if isinstance(self.core, Tagged):
            # These versions make their tags anew from the flags, and this one has none.
            expected["llm_read"] = False

    def z(self, key: str, expected: dict[str, Any]) -> None:
        expected["z_index"] = self.draw(st.sampled_from([-1, 0, 2, 2.5]))
        self.core.set_z_index(key, expected["z_index"])

    def system_tag(self, key: str, expected: dict[str, Any]) -> None:
        aspect = self.draw(st.sampled_from(sorted(self.core.system_tags)))
        assert isinstance(self.core, Tagged | Tags)
        self.core.toggle_system_tag(key, self.core.system_tags[aspect])
        # Version 2.4 reads both spellings of ApplyTemplate as two tags of one, and takes away only the first.
        expected[aspect] = self.core.system_tags[aspect] in self.core.held[key][1]["systemTags"]
        if isinstance(self.core, Renamed) and aspect != "visible":
            # Its flag says invisible then, which is its user's edit as far as anybody can tell.
            expected["visible"] = False


def agree(hub: Hub, expected: dict[str, dict[str, Any]]) -> None:
    assert {key: hub.view(key) for key in hub.entries} == expected
    for core in hub.cores:
        assert hub.push(core) == [], core.version


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_push_of_any_version_differs_and_no_edit_is_lost(data: Any) -> None:
    """Clients of all versions on one instance: one edits, pushes everything, all hear it, all push everything."""
    cores = [make() for make in CORES]
    hub, expected = Hub(cores), dict[str, dict[str, Any]]()
    for _ in range(data.draw(st.integers(1, 12))):
        core = data.draw(st.sampled_from(cores))
        user = User(core, data.draw)
        systemic = core.system_tags and core.held and data.draw(st.booleans())
        if systemic:
            key = data.draw(st.sampled_from(sorted(core.held)))
            user.system_tag(key, expected[key])
        else:
            user.edit(expected)
        hub.tell(hub.push(core))
        agree(hub, expected)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_edits_made_faster_than_the_answers_come_are_not_lost(data: Any) -> None:
    """One user edits several times and each time everything is pushed, before any frame comes back."""
    cores = [make() for make in CORES]
    hub, expected = Hub(cores), dict[str, dict[str, Any]]()
    for _ in range(data.draw(st.integers(1, 4))):
        core = data.draw(st.sampled_from(cores))
        user, frames = User(core, data.draw), list[bytes]()
        for _ in range(data.draw(st.integers(1, 5))):
            user.edit(expected)
            frames += hub.push(core)
        hub.tell(frames)
        agree(hub, expected)
