"""litehouse usage import FILE."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import Server, rows_of, serving
from tests.usage.conftest import import_file, write_events

LINES = 20_000
HEADER = "id,user_id,session_id,event_id,model,total_tokens,input_tokens,output_tokens,created_at\n"


def count_rows(server: Server) -> int:
    return int(rows_of(server.data_dir / "core.db", "SELECT count(*) FROM usage_logs")[0][0])


def test_ndjson_comes_in_whole_and_a_second_run_changes_nothing(server: Server, tmp_path: Path) -> None:
    write_events(tmp_path / "events.ndjson", 2_500)
    first = import_file(server, tmp_path / "events.ndjson")
    second = import_file(server, tmp_path / "events.ndjson")
    assert (first["accepted"], first["duplicates"]) == (2_500, 0)
    assert (second["accepted"], second["duplicates"]) == (0, 2_500)
    assert count_rows(server) == 2_500
    assert server.command("verify-usage").returncode == 0


def test_csv_keeps_created_at_and_bad_lines_are_named(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "usage.csv"
    path.write_text(
        HEADER
        + '1,dev-user,s1,e1,"a ""model""",10,4,6,2025-11-01 10:00:00\n'
        + "2,nobody,s1,e2,m,10,4,6,2025-11-01 10:00:00\n"
        + "3,dev-user,s1,e3,m,many,4,6,2025-11-01 10:00:00\n"
    )
    done = import_file(server, path)
    assert (done["accepted"], done["rejected"]) == (1, 2)
    assert "User not found: nobody" in str(done["errors"])
    assert "line 4: total_tokens" in str(done["errors"])
    (row,) = rows_of(
        server.data_dir / "core.db", "SELECT created_at, occurred_at_ms, received_at_ms, model FROM usage_logs"
    )
    assert row == ("2025-11-01 10:00:00", 1_761_991_200_000, 1_761_991_200_000, 'a "model"')


def test_an_export_comes_back_as_it_was(tmp_path: Path) -> None:
    with serving(tmp_path / "one") as one, serving(tmp_path / "two") as two:
        write_events(tmp_path / "events.ndjson", 1_500)
        import_file(one, tmp_path / "events.ndjson")
        with one.client() as client:
            (tmp_path / "export.csv").write_bytes(client.get("/api/usage/export").content)
            (tmp_path / "export.ndjson").write_bytes(client.get("/api/usage/export?format=ndjson").content)
        assert import_file(two, tmp_path / "export.csv")["accepted"] == 1_500
        assert import_file(two, tmp_path / "export.ndjson")["duplicates"] == 1_500


def test_a_file_that_is_no_usage_is_refused_in_one_line(server: Server, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    done = server.command("usage", "import", str(tmp_path / "other.csv"))
    assert done.returncode == 1
    assert "no header" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_import_killed_in_the_middle_goes_on_and_loses_nothing(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"
    write_events(path, LINES)
    words = [sys.executable, "-m", "app.cli", "usage", "import", str(path), "--data", str(server.data_dir)]
    with subprocess.Popen(words, env=server.environ) as importing:
        deadline = time.monotonic() + 30
        while count_rows(server) == 0 and time.monotonic() < deadline:
            pass
        importing.send_signal(signal.SIGKILL)
    before = count_rows(server)
    assert 0 < before < LINES, f"{before} of {LINES} rows were in when the import was killed"
    resumed = import_file(server, path)
    assert resumed["accepted"] == LINES - before, "the second run began where the first had committed"
    assert count_rows(server) == LINES
    assert server.command("verify-usage").returncode == 0


def test_a_running_server_answers_writes_while_a_file_comes_in(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"
    write_events(path, LINES)
    words = [sys.executable, "-m", "app.cli", "usage", "import", str(path), "--data", str(server.data_dir)]
    made = 0
    with subprocess.Popen(words, env=server.environ, stdout=subprocess.DEVNULL) as importing, server.client() as client:
        while importing.poll() is None:
            assert client.post("/api/keys", json={"name": "beside"}).status_code in (201, 429)
            made += 1
    assert made > 5, "writes went through while the import ran"
    assert count_rows(server) == LINES
