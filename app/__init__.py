"""litehouse: the backend of an AI app in one process."""

# First of all imports: it makes pysqlite3 the only SQLite that anything after it can load.
from app.edge import sqlite as sqlite

__version__ = "0.1.0"
