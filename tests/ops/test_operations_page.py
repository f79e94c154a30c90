"""docs/operations.md: what it names is there, and what there is to set is named."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from app.cli import main
from app.settings import PRODUCTION, read_unchecked

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs/operations.md").read_text()
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])

FENCED = re.compile(r"^ *```\w*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
# At the place of a command: not as the name of an app or a volume.
COMMAND = re.compile(r"""(?:^|["/(|&]) *litehouse +([^"|;<>#)]+)""", re.MULTILINE)
NAME = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+")
# What others read: Litestream, and S3 clients in general.
OTHERS = {
    "AWS_ACCESS_KEY_ID",
    "AWS_CA_BUNDLE",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "LITEFS_BIN",
}
PLACEHOLDERS = {"KEY_ID", "MACHINE_ID", "PRIMARY_MACHINE_ID", "VOLUME_ID"}


class Asked(dict[str, str]):
    """An environment that remembers what it was asked for."""

    def __init__(self) -> None:
        # What each asks for in addition belongs to it.
        super().__init__(ENVIRONMENT=PRODUCTION, RESEND_API_KEY="re_1")
        self.names: set[str] = set()

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        self.names.add(name)
        return super().get(name, default)


def read_names() -> set[str]:
    asked = Asked()
    read_unchecked(asked)
    return {name for name in asked.names if not name.endswith("_FILE")}


def code_of(text: str) -> Iterator[str]:
    yield from FENCED.findall(text)
    yield from INLINE.findall(FENCED.sub("", text))


def commands_of(page: Path) -> list[str]:
    return [found.strip() for code in code_of(page.read_text()) for found in COMMAND.findall(code)]


def problem_of(line: str) -> str | None:
    """What is wrong with the words after `litehouse`."""
    command: click.Command = main
    words = line.split()
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words[0])
        if found is None:
            return f"litehouse {line}: there is no {words[0]}"
        command, words = found, words[1:]
    known = {"--help", "--version", *(option for parameter in command.params for option in parameter.opts)}
    unknown = [word for word in words if word.startswith("--") and word.partition("=")[0] not in known]
    return f"litehouse {line}: there is no {unknown[0]}" if unknown else None


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_every_command_that_a_page_names_is_there(page: Path) -> None:
    assert [problem for line in commands_of(page) if (problem := problem_of(line))] == []


def test_commands_are_found_where_they_are_named() -> None:
    named = commands_of(ROOT / "docs/operations.md")
    assert {"doctor", "sql", "backup restore --to there", "keys rotate KEY_ID --grace 3600"} <= set(named)
    assert len(named) > 30
    assert problem_of("sevre") == "litehouse sevre: there is no sevre"
    assert problem_of("backup restore --onto x") == "litehouse backup restore --onto x: there is no --onto"


def test_every_setting_is_documented() -> None:
    documented = {name for code in code_of(OPERATIONS) for name in code.replace(",", " ").split()}
    assert read_names() - documented == set()


def test_every_setting_that_is_named_exists() -> None:
    named = {name.removesuffix("_FILE") for code in code_of(OPERATIONS) for name in NAME.findall(code)}
    assert named - read_names() - OTHERS - PLACEHOLDERS == set()


def test_the_deployment_sets_nothing_that_nobody_reads() -> None:
    assert set(tomllib.loads((ROOT / "fly.toml").read_text())["env"]) <= read_names()


def test_what_the_page_points_at_is_on_it() -> None:
    headings = set(re.findall(r"^#+ (.+)$", OPERATIONS, re.MULTILINE))
    pointed = {" ".join(found.split()) for found in re.findall(r"(?<![*\w])\*([A-Z][^*]+)\*(?![*\w])", OPERATIONS)}
    assert len(pointed) > 15
    assert pointed - headings == set()
