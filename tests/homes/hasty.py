"""The app as it is, in a hurry: what nobody uses is closed after a moment, and a machine is steady after another."""

import app  # noqa: F401 - before anything that could load another SQLite
from app import cli
from app.edge import registry
from app.instances import hubs

hubs.IDLE_SECONDS, hubs.SWEEP_SECONDS = 0.5, 0.2
registry.STEADY_SECONDS = 3.0

if __name__ == "__main__":
    cli.main()
