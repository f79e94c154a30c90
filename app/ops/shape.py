"""A shape: a JSON Schema in words, and as a list of its fields."""

from collections.abc import Iterator
from html import escape
from typing import Any

Node = dict[str, Any]

# How many objects inside objects are spelt out; a shape that holds itself would never end.
DEPTH = 4
RANGES = (("minimum", "maximum", ""), ("minLength", "maxLength", "characters"), ("minItems", "maxItems", "items"))
OTHER_BOUNDS = (("exclusiveMinimum", "above {}"), ("exclusiveMaximum", "below {}"), ("pattern", "matches {}"))
REQUIRED = "required"
# The largest integer that every JSON reader holds exactly.
EXACT = (1 << 53) - 1


class Shapes:
    """The named schemas of a document."""

    def __init__(self, schemas: Node) -> None:
        self._schemas = schemas

    def resolve(self, schema: Node) -> Node:
        name = _ref(schema)
        return self._schemas[name] if name else schema

    def words(self, schema: Node) -> str:
        """The type, as one would say it: `string`, `array of Result`, `"day" or "model"`."""
        name = _ref(schema)
        if name:
            return name
        if "const" in schema:
            return f'"{schema["const"]}"'
        if "enum" in schema:
            return " or ".join(f'"{value}"' for value in schema["enum"])
        options = _options(schema)
        if options:
            return " or ".join(dict.fromkeys(self.words(option) for option in options))
        if schema.get("type") == "array":
            return f"array of {self.words(schema.get('items', {}))}"
        kind = schema.get("type", "any JSON")
        return f"{kind} ({schema['format']})" if "format" in schema else str(kind)

    def bounds(self, schema: Node) -> str:
        """What limits a value, those of its alternatives with it."""
        said = [_range(schema.get(low), schema.get(high), unit) for low, high, unit in RANGES]
        said += [text.format(_figure(schema[name])) for name, text in OTHER_BOUNDS if name in schema]
        said += [bound for option in _options(schema) if _ref(option) is None and (bound := self.bounds(option))]
        return ", ".join(dict.fromkeys(filter(None, said)))

    def objects(self, schema: Node) -> Iterator[Node]:
        """Every object with fields that a value may be or hold as an item, each once."""
        schema = self.resolve(schema)
        if schema.get("properties"):
            yield schema
        inner = [*_options(schema), *schema.get("allOf", ())]
        if isinstance(schema.get("items"), dict):
            inner.append(schema["items"])
        seen: list[Node] = []
        for option in inner:
            for found in self.objects(option):
                if found not in seen:
                    seen.append(found)
                    yield found

    def fields(self, schema: Node, depth: int = DEPTH, *, given: bool = True) -> str:
        """The fields of each object in a schema, as HTML; nothing for a plain value.

        Of what is `given`, the fields that have to be there are marked; of an answer, those that may be missing.
        """
        objects = list(self.objects(schema))
        parts = []
        for found in objects:
            if len(objects) > 1:
                parts.append(f'<p class="one-of">{escape(found.get("title", "Object"))}</p>')
            required = found.get("required", ())
            rows = [
                self._field(name, one, _presence(name in required, given), depth, given)
                for name, one in found["properties"].items()
            ]
            parts.append(f'<ul class="fields">{"".join(rows)}</ul>')
        return "".join(parts)

    def _field(self, name: str, schema: Node, presence: str, depth: int, given: bool) -> str:
        inner = self.fields(schema, depth - 1, given=given) if depth > 1 else ""
        nested = f"<details><summary>{escape(self.words(schema))}</summary>{inner}</details>" if inner else ""
        return field(name, self.words(schema), self.facts(schema, presence), schema.get("description", ""), nested)

    def facts(self, schema: Node, presence: str) -> list[str]:
        """What is to be said of a value beside its type."""
        default = schema.get("default")
        facts = [presence] if presence else []
        facts += [bounds] if (bounds := self.bounds(schema)) else []
        return facts if default is None or default in ([], {}) else [*facts, f"default {default}"]


def field(name: str, words: str, facts: list[str], description: str = "", nested: str = "") -> str:
    """One line: a name, its type, what limits it, and what is inside."""
    said = "".join(
        f'<span class="{"required" if fact == REQUIRED else "fact"}">{escape(fact)}</span>' for fact in facts
    )
    text = f"<p>{prose(description)}</p>" if description else ""
    head = f'<code class="name">{escape(name)}</code>'
    # An object's type opens its fields; said twice it would only be longer.
    kind = "" if nested else f'<span class="type">{escape(words)}</span>'
    return f"<li>{head} {kind}{said}{text}{nested}</li>"


def prose(text: str) -> str:
    """A line of text, with what stands in backticks as code."""
    parts = escape(text, quote=False).split("`")
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))


def _presence(required: bool, given: bool) -> str:
    if given:
        return REQUIRED if required else ""
    return "" if required else "may be missing"


def _ref(schema: Node) -> str | None:
    ref = schema.get("$ref")
    return ref.rpartition("/")[2] if isinstance(ref, str) else None


def _options(schema: Node) -> list[Node]:
    """The alternatives of a schema but null, which says no more than that the field may be left out."""
    options = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    return [option for option in options if option.get("type") != "null"]


def _range(low: Any, high: Any, unit: str) -> str:
    if low is None and high is None:
        return ""
    if high is None:
        if low == 1 and unit:
            return "not empty"
        return f"at least {_figure(low)} {unit}".strip()
    said = f"at most {_figure(high)}" if low is None else f"{_figure(low)} to {_figure(high)}"
    return f"{said} {unit}".strip()


def _figure(value: Any) -> str:
    if value == EXACT:
        return "2⁵³\u202f−\u202f1"
    return f"{value:,}".replace(",", "\u202f") if isinstance(value, int) else str(value)
