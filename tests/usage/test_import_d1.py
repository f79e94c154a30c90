"""litehouse import-d1 FILE.sql."""

import json
from pathlib import Path

from tests.conftest import Server, rows_of

DUMP = """PRAGMA defer_foreign_keys=TRUE;
CREATE TABLE users (id TEXT PRIMARY KEY, clerk_id TEXT, email TEXT, first_name TEXT, subscription TEXT,
  token_quota INTEGER, created_at DATETIME DEFAULT CURRENT_TIMESTAMP);
INSERT INTO "users" VALUES('u-1','user_ann','ann@example.com','Ann; ''A''','starter_plan',10000000,
  '2025-01-02 03:04:05');
INSERT INTO "users" VALUES('user_bo',NULL,NULL,NULL,'nosuch',5,'2025-01-02 03:04:05');
CREATE TABLE usage_logs (id INTEGER PRIMARY KEY AUTOINCREMENT, user_id TEXT, session_id TEXT, response_id TEXT,
  event_type TEXT, provider TEXT, model TEXT, total_tokens INTEGER, input_tokens INTEGER, output_tokens INTEGER,
  input_token_details TEXT, output_token_details TEXT, metadata TEXT, created_at DATETIME);
INSERT INTO "usage_logs" VALUES(1,'u-1','s','resp_1','response.done','openai','m',10,4,6,NULL,NULL,'{"text":"one
two;"}','2025-11-01 10:00:00');
INSERT INTO "usage_logs" VALUES(2,'user_ann','s','resp_1','response.done','openai','m',20,8,12,NULL,NULL,NULL,
  '2025-11-02 10:00:00');
INSERT INTO "usage_logs" VALUES(3,'user_gone','s',NULL,NULL,NULL,NULL,7,0,0,NULL,NULL,NULL,'2025-11-02 10:00:00');
INSERT INTO "usage_logs" VALUES(4,'user_bo','s',NULL,NULL,NULL,NULL,'many',0,0,NULL,NULL,NULL,'2025-11-02 10:00:00');
CREATE TABLE webhook_logs (id INTEGER PRIMARY KEY, event_id TEXT, event_type TEXT, processing_status TEXT,
  payload TEXT, created_at TEXT);
INSERT INTO "webhook_logs" VALUES(1,'msg_1','user.created','success','{"data":{"id":"user_ann"}}',
  '2025-11-01 10:00:00');
CREATE TRIGGER emptied AFTER INSERT ON users BEGIN DELETE FROM users; END;
DELETE FROM sqlite_sequence;
CREATE INDEX usage_by_user ON usage_logs(user_id);
"""


def import_dump(server: Server, path: Path) -> dict[str, dict[str, object]]:
    done = server.command("import-d1", str(path), "--name", "prod", "--json")
    assert done.returncode == 0, done.stderr
    return {row["what"]: row for row in json.loads(done.stdout)["imported"]}


def read(server: Server, sql: str) -> list[tuple[object, ...]]:
    return rows_of(server.data_dir / "core.db", sql)


def test_a_dump_comes_in_beside_a_running_server_and_a_second_run_changes_nothing(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "dump.sql").write_text(DUMP)
    first = import_dump(server, tmp_path / "dump.sql")
    assert (first["users"]["accepted"], first["usage_logs"]["accepted"], first["webhook_logs"]["accepted"]) == (2, 3, 1)
    assert first["usage_logs"]["rejected"] == 1
    assert "usage_logs 4: total_tokens" in str(first["usage_logs"]["errors"])
    everything = (
        "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM usage_logs), (SELECT count(*) FROM webhook_logs)"
    )
    before = read(server, everything)
    second = import_dump(server, tmp_path / "dump.sql")
    assert [second[table]["accepted"] for table in second] == [0, 0, 0]
    assert read(server, everything) == before
    assert server.command("verify-usage").returncode == 0


def test_both_ids_of_an_old_user_are_one_user_and_its_rows_keep_their_time(server: Server, tmp_path: Path) -> None:
    (tmp_path / "dump.sql").write_text(DUMP)
    import_dump(server, tmp_path / "dump.sql")
    rows = read(
        server,
        """SELECT l.source, l.event_id, l.created_at, l.total_tokens, i.subject, l.metadata
           FROM usage_logs l JOIN identities i ON i.user_id = l.user_id AND i.provider = 'clerk' ORDER BY l.id""",
    )
    assert rows == [
        ("d1:prod", "1", "2025-11-01 10:00:00", 10, "user_ann", '{"text":"one\ntwo;"}'),
        ("d1:prod", "2", "2025-11-02 10:00:00", 20, "user_ann", None),
        ("d1:prod", "3", "2025-11-02 10:00:00", 7, "user_gone", None),
    ]


def test_a_quota_equal_to_the_plan_is_no_override_and_an_unknown_plan_is_said(server: Server, tmp_path: Path) -> None:
    (tmp_path / "dump.sql").write_text(DUMP)
    first = import_dump(server, tmp_path / "dump.sql")
    assert "unknown plan 'nosuch'" in str(first["users"]["errors"])
    rows = read(
        server,
        """SELECT i.subject, u.plan, u.token_quota, u.email FROM users u JOIN identities i ON i.user_id = u.id
           WHERE i.provider = 'clerk' AND i.subject IN ('user_ann', 'user_bo') ORDER BY 1""",
    )
    assert rows == [("user_ann", "starter", None, "ann@example.com"), ("user_bo", "free", 5, None)]


def test_a_file_that_is_no_dump_is_refused_in_one_line(server: Server, tmp_path: Path) -> None:
    (tmp_path / "dump.sql").write_text("CREATE TABLE other (a); INSERT INTO other VALUES (1);\n")
    done = server.command("import-d1", str(tmp_path / "dump.sql"))
    assert done.returncode == 1
    assert "holds none of" in done.stderr


def test_a_webhook_of_the_old_log_is_found_by_whom_it_is_about(server: Server, tmp_path: Path) -> None:
    (tmp_path / "dump.sql").write_text(DUMP)
    import_dump(server, tmp_path / "dump.sql")
    assert read(server, "SELECT event_id, subject, created_at FROM webhook_logs") == [
        ("msg_1", "user_ann", "2025-11-01 10:00:00")
    ]
