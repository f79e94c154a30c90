"""litehouse itself: every command is there, says what it is, and answers in JSON where it is asked to."""

import click
import pytest
from click.testing import CliRunner

import app
from app.cli import main

IMPORTS = "verify-usage import-d1"
COMMANDS = f"serve migrate seed keys users usage plans prices origins webhooks {IMPORTS} instances backup doctor sql"


def leaves(command: click.Command, words: tuple[str, ...] = ()) -> list[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        return [(" ".join(words), command)]
    context = click.Context(command)
    found = [(name, command.get_command(context, name)) for name in command.list_commands(context)]
    return [leaf for name, child in found if child is not None for leaf in leaves(child, (*words, name))]


LEAVES = leaves(main)


def test_every_command_is_on_the_contents_page() -> None:
    context = click.Context(main)
    assert main.list_commands(context) == COMMANDS.split()


@pytest.mark.parametrize(("name", "command"), LEAVES, ids=[name for name, _ in LEAVES])
def test_every_command_takes_data_and_json_and_says_what_it_does(name: str, command: click.Command) -> None:
    taken = {option for parameter in command.params for option in parameter.opts}
    assert {"--data", "--json"} <= taken
    assert command.help


def test_a_name_that_is_no_command_exits_2() -> None:
    done = CliRunner().invoke(main, ["sevre"])
    assert (done.exit_code, "No such command 'sevre'" in done.output) == (2, True)


def test_the_help_is_the_contents_page() -> None:
    done = CliRunner().invoke(main, ["--help"])
    assert done.exit_code == 0
    listed = done.output.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed if line.startswith("  ") and line[2] != " "] == COMMANDS.split()


def test_the_version_is_the_packages() -> None:
    assert CliRunner().invoke(main, ["--version"]).output == f"litehouse, version {app.__version__}\n"
