"""Names: what people call projects, instances, groups and delegates."""

from typing import Annotated

import msgspec

from app.errors import Invalid

NAME_CHARACTERS = 200
DESCRIPTION_CHARACTERS = 10_000

# May be null, so that `name_of` can refuse it in the words that clients know.
Name = Annotated[str, msgspec.Meta(max_length=NAME_CHARACTERS)] | None
Description = Annotated[str, msgspec.Meta(max_length=DESCRIPTION_CHARACTERS)] | None


def name_of(text: str | msgspec.UnsetType | None, absent: str = "Name required") -> str:
    """A name as it is kept; Invalid, in the words of `absent`, when there is none."""
    name = text.strip() if isinstance(text, str) else ""
    if not name:
        raise Invalid(absent)
    return plain(name, "name") or name


def plain(text: str | msgspec.UnsetType | None, field: str) -> str | None:
    """A text that can be stored whole. Invalid for one with a NUL."""
    if not isinstance(text, str):
        return None
    if "\0" in text:
        raise Invalid(f"{field}: a text holds a NUL character")
    return text
