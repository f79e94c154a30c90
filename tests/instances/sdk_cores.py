"""The cores of the shipped SDKs, as far as attributes go: what each version hears, edits and pushes."""

import json
from collections.abc import Callable
from typing import Any

Attributes = dict[str, Any]
LEGACY = {"readonly": "readonly", "visible": "prompt", "hardcoded": "protected", "template": "template"}


class Core:
    """Version 2.0: it keeps what it hears as it is, and edits flags and `tags`."""

    version = "2.0"
    flags = ("readonly", "visible", "template")
    system_tags: dict[str, str] = {}
    has_z_index = False

    def __init__(self) -> None:
        self.held: dict[str, tuple[object, Attributes]] = {}

    def fresh(self) -> Attributes:
        return {"readonly": False, "visible": True, "hardcoded": False, "template": False, "type": "text", "tags": []}

    def hear(self, key: str, value: object, attributes: Attributes) -> None:
        self.held[key] = (value, attributes)

    def pushes(self) -> list[str]:
        """Every key, whatever has changed."""
        return [
            json.dumps({"type": "set", "key": key, "value": value, "attributes": attributes, "timestamp": 1})
            for key, (value, attributes) in self.held.items()
            if not attributes["hardcoded"]
        ]

    def set_value(self, key: str, value: object) -> None:
        _, attributes = self.held.get(key, (None, None))
        self.held[key] = (value, attributes if attributes is not None else self.fresh())

    def set_flag(self, key: str, flag: str, value: bool) -> None:
        self.held[key][1][flag] = value

    def toggle_tag(self, key: str, tag: str) -> None:
        toggle(self.held[key][1].setdefault("tags", []), tag)

    def set_z_index(self, key: str, z_index: float) -> None:
        self.held[key][1]["zIndex"] = z_index


class Flagged(Core):
    """A hand-written client of that time: keys begin with flags only."""

    version = "flags only"

    def fresh(self) -> Attributes:
        return {"type": "text", "readonly": False, "visible": True, "hardcoded": False, "template": False}


class Tagged(Core):
    """Versions 2.1 to 2.3: tags in the old spelling decide, and a flag's edit makes them anew."""

    version = "2.3"
    system_tags = {"readonly": "readonly", "visible": "prompt", "template": "template"}
    has_z_index = True

    def fresh(self) -> Attributes:
        return super().fresh() | {"contentTags": [], "systemTags": ["prompt"], "zIndex": 0}

    def hear(self, key: str, value: object, attributes: Attributes) -> None:
        tags = attributes["systemTags"]
        content = attributes["contentTags"]
        flags = {flag: tag in tags for flag, tag in LEGACY.items()}
        self.held[key] = (value, attributes | {"contentTags": content, "tags": content, "systemTags": tags} | flags)

    def set_flag(self, key: str, flag: str, value: bool) -> None:
        attributes = self.held[key][1]
        attributes[flag] = value
        attributes["systemTags"] = [tag for name, tag in LEGACY.items() if attributes[name]]

    def toggle_tag(self, key: str, tag: str) -> None:
        attributes = self.held[key][1]
        toggle(attributes["contentTags"], tag)
        attributes["tags"] = list(attributes["contentTags"])

    def toggle_system_tag(self, key: str, tag: str) -> None:
        attributes = self.held[key][1]
        toggle(attributes["systemTags"], tag)
        self.follow_tags(attributes)

    def follow_tags(self, attributes: Attributes) -> None:
        attributes.update({flag: tag in attributes["systemTags"] for flag, tag in LEGACY.items()})


class Renamed(Tagged):
    """Version 2.4: the new spelling. After an edit of a system tag its `visible` still looks for the old one."""

    version = "2.4"
    system_tags = {
        "readonly": "readonly",
        "visible": "SystemPrompt",
        "template": "ApplyTemplate",
        "llm_read": "LLMRead",
    }

    def fresh(self) -> Attributes:
        return super().fresh() | {"systemTags": ["SystemPrompt", "LLMWrite"]}

    def hear(self, key: str, value: object, attributes: Attributes) -> None:
        super().hear(key, value, attributes)
        self.renew(self.held[key][1], attributes["systemTags"])

    def set_flag(self, key: str, flag: str, value: bool) -> None:
        super().set_flag(key, flag, value)
        attributes = self.held[key][1]
        self.renew(attributes, attributes["systemTags"])

    def renew(self, attributes: Attributes, tags: list[str]) -> None:
        renewed = ["protected"] if "protected" in tags else []
        renewed += ["ApplyTemplate" for tag in tags if tag in ("ApplyTemplate", "template")]
        renewed += ["SystemPrompt"] if {"SystemPrompt", "prompt"} & {*tags} else []
        renewed += ["LLMRead"] if "LLMRead" in tags else []
        renewed += ["readonly"] if "readonly" in tags else ["LLMWrite"]
        attributes["systemTags"] = renewed
        attributes["readonly"] = "readonly" in renewed
        attributes["visible"] = "SystemPrompt" in renewed
        attributes["template"] = "ApplyTemplate" in renewed

    def follow_tags(self, attributes: Attributes) -> None:
        super().follow_tags(attributes)
        attributes["template"] = {"ApplyTemplate", "template"} & {*attributes["systemTags"]} != set()


class Tags(Core):
    """A client of its own kind: no flags at all, tags and order only, and an attribute that nobody else knows."""

    version = "tags only"
    flags = ()
    system_tags = {
        "readonly": "readonly",
        "visible": "SystemPrompt",
        "template": "ApplyTemplate",
        "llm_read": "LLMRead",
    }
    has_z_index = True
    both = {"SystemPrompt": "prompt", "ApplyTemplate": "template"}

    def fresh(self) -> Attributes:
        return {"type": "text", "contentTags": [], "systemTags": ["SystemPrompt"], "zIndex": 0, "colour": "red"}

    def hear(self, key: str, value: object, attributes: Attributes) -> None:
        own = ("type", "contentType", "contentTags", "systemTags", "zIndex", "colour")
        self.held[key] = (value, {name: attributes[name] for name in own if name in attributes})

    def pushes(self) -> list[str]:
        return [
            json.dumps({"type": "set", "key": key, "value": value, "attributes": attributes})
            for key, (value, attributes) in self.held.items()
        ]

    def toggle_tag(self, key: str, tag: str) -> None:
        toggle(self.held[key][1]["contentTags"], tag)

    def toggle_system_tag(self, key: str, tag: str) -> None:
        tags = self.held[key][1]["systemTags"]
        spellings = {tag, self.both.get(tag, tag)}
        wanted = spellings.isdisjoint(tags)
        tags[:] = [held for held in tags if held not in spellings | {"LLMWrite"}]
        if wanted:
            tags.append(tag)
        # No list is empty: an empty one would say nothing.
        if "readonly" not in tags:
            tags.append("LLMWrite")


def toggle(tags: list[str], tag: str) -> None:
    tags.remove(tag) if tag in tags else tags.append(tag)


CORES: tuple[Callable[[], Core], ...] = (Core, Flagged, Tagged, Renamed, Tags)
