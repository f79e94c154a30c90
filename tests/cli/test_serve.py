"""litehouse serve: what a start makes and prints, and how it ends."""

import json
import shutil
import signal
import socket
import stat
import subprocess
import sys
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

import httpx
import pytest

from app.edge import migrate, sqlite
from cluster.ports import free_port
from tests.cli.conftest import printed, run
from tests.conftest import ADMIN_TOKEN, STOP_SECONDS, Server, serving

DEMO_USER = "user_2demoAdaLovelace1815London"


def key_of(server: Server) -> str:
    return (server.data_dir / "demo-key").read_text().strip()


def calls(server: Server) -> list[str]:
    lines = printed(server, "Try:\n").splitlines()
    return [line.strip() for line in lines if line.startswith("  curl ")][-3:]


def in_a_shell(line: str, **environ: str) -> dict[str, object]:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    done = subprocess.run(
        ["bash", "-c", line], env={"PATH": "/usr/bin:/bin"} | environ, capture_output=True, text=True, timeout=30
    )
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def start_alone(data_dir: Path, port: int, **environ: str) -> "subprocess.Popen[str]":
    server = Server(data_dir, **environ)
    return subprocess.Popen(
        [sys.executable, "-m", "app.cli", "serve", "--port", str(port), "--data", str(data_dir)],
        env=server.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_three_calls_work_as_they_are_printed(server: Server) -> None:
    ingest, as_operator, as_client = calls(server)
    assert in_a_shell(ingest)["accepted"] == 1
    quota = in_a_shell(as_operator, ADMIN_TOKEN=ADMIN_TOKEN)
    assert (quota["plan"], quota["used"]) == ("basic", 1200)
    assert in_a_shell(as_client)["plan"] == "premium"


def test_a_second_start_prints_the_same_key_from_its_file(tmp_path: Path) -> None:
    server = Server(tmp_path / "data")
    keys = set()
    for _ in range(2):
        server.log_path.unlink(missing_ok=True)
        server.start()
        keys.add(key_of(server))
        assert f"demo key       {key_of(server)} " in printed(server, "Try:\n")
        server.stop()
    assert len(keys) == 1
    assert stat.S_IMODE((server.data_dir / "demo-key").stat().st_mode) == 0o600


def test_without_an_admin_token_the_first_start_makes_one_and_keeps_it(tmp_path: Path) -> None:
    server = Server(tmp_path / "my data", ADMIN_TOKEN="")
    tokens = set()
    for _ in range(2):
        server.start()
        kept = server.data_dir / "admin-token"
        tokens.add(kept.read_text().strip())
        answer = in_a_shell(calls(server)[1])
        server.stop()
        assert answer["plan"] == "basic"
    assert len(tokens) == 1
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert tokens.pop() not in server.log()


def test_a_revoked_demo_key_is_not_printed_again_and_no_other_is_made(server: Server) -> None:
    (key,) = run(server, "keys", "list")
    run(server, "keys", "revoke", key["id"])
    server.stop()
    server.log_path.unlink()
    server.start()
    assert key_of(server) not in printed(server, "Try:\n")
    assert "none: litehouse keys create" in server.log()
    assert [listed["status"] for listed in run(server, "keys", "list")] == ["revoked"]


def test_a_deleted_demo_user_stays_deleted_but_dev_user_comes_back(server: Server) -> None:
    run(server, "users", "delete", DEMO_USER)
    run(server, "users", "delete", "dev-user")
    server.stop()
    server.start()
    assert [user["id"] for user in run(server, "users", "list")] == ["demo-relay", "dev-user"]


def test_production_seeds_nothing(tmp_path: Path) -> None:
    with serving(tmp_path / "data", ENVIRONMENT="production", JWT_SECRET="secret") as server:
        assert "curl" not in printed(server, "litehouse serves")
        assert run(server, "users", "list") == []
        assert not (server.data_dir / "demo-key").exists()
        assert not (server.data_dir / "admin-token").exists()


def test_two_starts_at_once_make_one_key(tmp_path: Path) -> None:
    both = [Server(tmp_path / "data") for _ in range(2)]
    both[1].log_path = tmp_path / "second.log"
    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(Server.start, both))
        for server in both:
            printed(server, f"demo key       {key_of(server)} ")
        assert len(run(both[0], "keys", "list")) == 1
        assert sorted(path.name for path in (tmp_path / "data").iterdir() if path.name.startswith(".")) == []
    finally:
        for server in both:
            server.close()


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        starting = start_alone(tmp_path / "data", port)
        out, error = starting.communicate(timeout=STOP_SECONDS)
    assert starting.returncode == 1
    assert (out, error) == ("", f"Error: Cannot listen on 127.0.0.1 port {port}: Address already in use\n")
    assert not (tmp_path / "data").exists()


def test_of_two_that_want_one_port_exactly_one_serves(tmp_path: Path) -> None:
    port = free_port()
    both = [start_alone(tmp_path / name, port) for name in ("one", "other")]
    with ThreadPoolExecutor() as pool:
        ends = {pool.submit(process.wait, STOP_SECONDS): process for process in both}
        first = wait(ends, return_when=FIRST_COMPLETED).done.pop()
        loser = ends[first]
        (winner,) = [process for process in both if process is not loser]
        assert winner.stdout is not None
        assert winner.stdout.readline().startswith(f"litehouse serves http://127.0.0.1:{port} ")
        winner.terminate()
    assert (loser.returncode, winner.returncode) == (1, 0)
    assert loser.communicate()[1] == f"Error: Cannot listen on 127.0.0.1 port {port}: Address already in use\n"
    winner.communicate()


def test_wrong_settings_are_named_all_at_once(tmp_path: Path) -> None:
    starting = start_alone(tmp_path / "data", 0, ENVIRONMENT="production", ADMIN_TOKEN="")
    error = starting.communicate(timeout=STOP_SECONDS)[1]
    assert starting.returncode == 1
    assert "JWT_SECRET is required" in error
    assert "ADMIN_TOKEN is required" in error
    assert "Traceback" not in error


def test_a_database_of_newer_code_is_one_line(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    migrate.migrate(data_dir / "core.db", "core")
    raw = sqlite.connect(data_dir / "core.db")
    raw.execute("UPDATE schema SET version = 9000, readable_from = 9000")
    raw.close()
    starting = start_alone(data_dir, 0)
    error = starting.communicate(timeout=STOP_SECONDS)[1]
    assert starting.returncode == 1
    assert error.startswith("Error: The database has schema 9000, readable from 9000 on")
    assert error.count("\n") == 1


def test_json_says_where_the_server_listens(tmp_path: Path) -> None:
    server = Server(tmp_path / "data")
    starting = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "serve", "--port", "0", "--data", str(server.data_dir), "--json"],
        env=server.environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert starting.stdout is not None
    said = json.loads(starting.stdout.readline())
    assert httpx.get(f"{said['address']}/livez", trust_env=False).text == "ok"
    assert said["demoKey"] == key_of(server)
    starting.terminate()
    assert starting.wait(STOP_SECONDS) == 0
    starting.communicate()


def test_a_stop_finishes_what_was_accepted(server: Server) -> None:
    """Without it, a relay would be told nothing of an event that the server was reading."""
    event = json.dumps({"clerkId": DEMO_USER, "responseId": "resp_late", "totalTokens": 5}).encode()
    head = (
        f"POST /api/usage/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key_of(server)}\r\n"
        f"Content-Length: {len(event)}\r\nExpect: 100-continue\r\n\r\n"
    )
    assert server.process is not None
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as caller:
        caller.sendall(head.encode())
        assert caller.recv(1024).startswith(b"HTTP/1.1 100")
        server.process.send_signal(signal.SIGTERM)
        while accepts(server.port):
            pass
        caller.sendall(event)
        answer = b"".join(iter(lambda: caller.recv(65_536), b""))
    assert b" 200 OK" in answer
    assert b'"accepted":1' in answer
    assert server.process.wait(STOP_SECONDS) == 0


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_a_stop_by_the_keyboard_is_as_clean(server: Server) -> None:
    assert server.process is not None
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(STOP_SECONDS) == 0
    assert "Traceback" not in server.log()


def test_a_callers_own_word_for_its_address_is_not_believed(tmp_path: Path) -> None:
    """Else anybody could leave the limit of requests without a credential by naming another address each time."""
    with serving(tmp_path / "data", ENVIRONMENT="production", JWT_SECRET="secret") as server:
        remaining = []
        for number in range(4):
            with server.client(**{"X-Forwarded-For": f"203.0.113.{number}"}) as client:
                remaining.append(int(client.get("/api/keys").headers["x-ratelimit-remaining"]))
    assert min(remaining) < max(remaining)
