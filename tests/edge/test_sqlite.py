"""The one SQLite: pysqlite3, new enough, and no second copy beside it."""

import subprocess
import sys

import pytest

import app
from app.edge import sqlite


def run(program: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)


def test_the_library_is_new_enough_and_answers_to_every_name() -> None:
    import sqlite3
    import sqlite3.dbapi2

    import aiosqlite.core
    import sqlite_utils.db

    assert sqlite3.sqlite_version_info >= sqlite.OLDEST_SAFE
    assert sqlite3.__name__ == "pysqlite3"
    assert sqlite3.dbapi2.__name__ == "pysqlite3.dbapi2"
    assert aiosqlite.core.sqlite3 is sqlite3
    assert sqlite_utils.db.sqlite3 is sqlite3
    assert sqlite3.sqlite_version == app.sqlite.VERSION
    sqlite.assert_one_module()


def test_a_process_that_has_loaded_another_sqlite_is_refused() -> None:
    refused = run("import sqlite3; import app")
    assert refused.returncode != 0
    assert "The standard library's sqlite3 is loaded already" in refused.stderr


def test_boot_notices_a_second_sqlite_that_came_later() -> None:
    refused = run("import app, _sqlite3; app.sqlite.assert_one_module()")
    assert "A second copy of SQLite was loaded" in refused.stderr


def test_a_library_with_the_wal_reset_fault_is_refused() -> None:
    refused = run("import pysqlite3; pysqlite3.sqlite_version_info = (3, 51, 2); import app")
    assert "is older than 3.51.3" in refused.stderr


def test_everything_that_the_server_loads_shares_the_one_module() -> None:
    loaded = run(
        "import app.main, app.cli, aiosqlite, sqlite_utils.migrations\n"
        "from app.edge import sqlite; sqlite.assert_one_module(); print('one')"
    )
    assert loaded.stdout == "one\n", loaded.stderr


@pytest.mark.parametrize(
    ("code", "fault"), [(5, "busy"), (517, "busy"), (13, "full"), (778, "io"), (8, "readonly"), (1, None), (2067, None)]
)
def test_only_faults_of_the_machine_pass_by_themselves(code: int, fault: str | None) -> None:
    error = sqlite.Error()
    error.sqlite_errorcode = code  # type: ignore[attr-defined]
    assert sqlite.passing_fault(error) == fault
