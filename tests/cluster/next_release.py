"""The next release of the app: this one, with one migration more, which NEXT_MIGRATIONS names the folder of."""

import os
from pathlib import Path

import app  # noqa: F401 - before anything that could load another SQLite
from app import cli
from app.edge import migrate

migrate.MIGRATIONS = Path(os.environ["NEXT_MIGRATIONS"])

if __name__ == "__main__":
    cli.main()
