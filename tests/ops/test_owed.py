"""What a machine owed as a replica, once it is the primary itself.

What would be lost: what happened at its instances while the old primary was away, which is when another takes over.
"""

from pathlib import Path

from app.edge import migrate
from tests.conftest import Server, rows_of
from tests.homes.spooling import owe_usage
from tests.waiting import until

EVENTS = 3


def test_a_primary_takes_what_it_owed_before_it_was_one_and_takes_it_once(tmp_path: Path) -> None:
    server = Server(tmp_path / "data")
    machine_file = server.data_dir / "machine.db"
    migrate.migrate(machine_file, "machine")
    owed = [owe_usage(machine_file, number) for number in range(EVENTS)]
    for _ in range(2):
        server.start()
        try:
            until(lambda: not rows_of(machine_file, "SELECT 1 FROM spool"))
        finally:
            server.stop()
        stored = rows_of(server.data_dir / "core.db", "SELECT event_id FROM usage_logs ORDER BY id")
        assert [row[0] for row in stored] == owed
        assert not rows_of(machine_file, "SELECT 1 FROM refused")
        # As a kill between the two commits leaves it.
        owe_usage(machine_file, 0)
