"""litehouse verify-usage."""

import json

from app.edge import sqlite
from tests.conftest import Server


def test_a_counter_that_is_wrong_and_a_broken_link_are_found(server: Server) -> None:
    raw = sqlite.connect(server.data_dir / "core.db")
    for number in range(3):
        raw.execute(
            """INSERT INTO usage_logs (user_id, event_id, total_tokens, input_tokens, output_tokens, created_at, source,
                   occurred_at_ms, received_at_ms, previous_id, event_key, content_hash)
               VALUES ('dev-user', ?, 10, 4, 6, '2026-03-01 00:00:00', 'test', 1772323200000, 1772323200000,
                   (SELECT last_log_id FROM usage_periods), randomblob(16), randomblob(16))""",
            (str(number),),
        )
    clean = server.command("verify-usage", "--json")
    assert clean.returncode == 0
    assert json.loads(clean.stdout) == {"rows": 3, "counters": 3, "brokenLinks": 0, "differences": []}
    raw.execute("UPDATE usage_periods SET total_tokens = total_tokens + 1")
    raw.execute("UPDATE usage_rollups SET events = 0")
    raw.execute("UPDATE usage_days SET cost_micros = 7")
    raw.execute("UPDATE usage_logs SET previous_id = NULL WHERE id = 3")
    raw.close()
    broken = server.command("verify-usage", "--json")
    report = json.loads(broken.stdout)
    assert broken.returncode == 1
    assert report["brokenLinks"] == 1
    assert [(found["where"], found["counted"], found["ledger"]) for found in report["differences"]] == [
        ("usage_periods", [31, 12, 18, 3, 0], [30, 12, 18, 3, 0]),
        ("usage_rollups", [30, 12, 18, 0, 0], [30, 12, 18, 3, 0]),
        ("usage_days", [30, 12, 18, 3, 7], [30, 12, 18, 3, 0]),
    ]
