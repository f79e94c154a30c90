"""The command that processes a provider's event again: `webhooks retry`, beside the log's own commands."""

import asyncio

import click

from app.accounts import clerk_webhook
from app.edge import console
from app.edge.console import Console
from app.webhooks.commands import log_record, webhooks_group

__all__ = ["webhooks_group"]


@webhooks_group.command("retry")
@click.argument("any_id", metavar="ID")
@console.options
def retry(out: Console, any_id: str) -> None:
    """Process a failed event from its stored payload. One that was done is left as it is."""
    entry, duplicate = asyncio.run(out.use(lambda db: clerk_webhook.replay(db, any_id)))
    said = "was done before" if duplicate else f"is done: {entry.outcome}"
    out.say({**log_record(entry), "duplicate": duplicate}, f"{entry.event_id} {said}.")
