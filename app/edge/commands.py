"""The commands of the machine room: `migrate` and `origins`."""

import click

from app.edge import beginning, console, migrate, origins, sqlite
from app.edge.console import Console
from app.settings import read_unchecked


@click.command("migrate")
@click.option("--list", "listing", is_flag=True, help="Show the migrations and change nothing.")
@click.option("--anew", is_flag=True, help="Make an empty database although the backup holds one.")
@console.options
def migrate_command(out: Console, listing: bool, anew: bool) -> None:
    """Make the database, or bring it up to date.

    A running server goes on meanwhile: it waits for the step as it would for any write. Where there is no database and
    LITESTREAM_REPLICA_URL holds one, that one is to be restored, and none is made unless --anew says so.
    """
    if listing:
        _show_migrations(out)
        return
    out.require_primary()
    if not anew:
        beginning.require_free(out.database_path, read_unchecked().backup_url)
    applied = migrate.migrate(out.database_path, "core")
    version = migrate.list_migrations("core")[-1].version
    said = f"Applied {', '.join(applied)}." if applied else "Nothing to do."
    out.say({"applied": applied, "version": version}, f"{said} The schema is {version}.")


def _show_migrations(out: Console) -> None:
    version = 0
    if out.database_path.exists():
        raw = sqlite.connect(out.database_path, read_only=True)
        try:
            version, _ = migrate.read_version(raw)
        finally:
            raw.close()
    steps = migrate.list_migrations("core")
    out.show_all(
        ({"version": step.version, "name": step.name, "applied": step.version <= version} for step in steps),
        ("version", "name", "applied"),
    )


@click.group("origins")
def origins_group() -> None:
    """Who may call from a browser.

    These rows stand beside the origins in the settings.
    """


@origins_group.command("list")
@console.options
def list_origins(out: Console) -> None:
    """Show the origins that rows allow."""
    out.show_all(({"origin": origin} for origin in out.read(origins.list_origins)), ("origin",))


@origins_group.command("add")
@click.argument("origin")
@console.options
def add(out: Console, origin: str) -> None:
    """Allow an origin, such as https://app.example.com, https://*.example.com or chrome-extension://ID."""
    origins.check(origin)
    added = out.write(origins.add, origin)
    out.say({"origin": origin, "added": added}, f"{origin} is allowed." if added else f"{origin} was allowed already.")


@origins_group.command("remove")
@click.argument("origin")
@console.options
def remove(out: Console, origin: str) -> None:
    """Take an origin back."""
    if not out.write(origins.remove, origin):
        raise click.ClickException(f"{origin} is not listed.")
    out.say({"origin": origin, "removed": True}, f"{origin} is no longer allowed.")
