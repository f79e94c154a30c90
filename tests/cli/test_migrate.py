"""litehouse migrate and seed, without a server and beside one."""

from pathlib import Path

from tests.cli.conftest import refusal, run
from tests.conftest import Server, rows_of


def test_a_database_is_made_once(tmp_path: Path) -> None:
    nobody = Server(tmp_path / "data")
    pending = run(nobody, "migrate", "--list")
    assert not any(step["applied"] for step in pending)
    assert not nobody.data_dir.exists()
    made = run(nobody, "migrate")
    assert made["applied"] == [step["name"] for step in pending]
    assert run(nobody, "migrate") == {"applied": [], "version": made["version"]}
    assert all(step["applied"] for step in run(nobody, "migrate", "--list"))


def test_beside_a_server_there_is_nothing_to_do(server: Server) -> None:
    assert run(server, "migrate")["applied"] == []
    with server.client() as client:
        assert client.get("/readyz").status_code == 200


def test_other_commands_make_no_database(tmp_path: Path) -> None:
    nobody = Server(tmp_path / "data")
    assert refusal(nobody, "users", "list") == (
        f"There is no database at {tmp_path}/data/core.db: `litehouse migrate` makes it."
    )
    assert not nobody.data_dir.exists()


def test_a_seed_gives_what_a_first_start_would(tmp_path: Path) -> None:
    server = Server(tmp_path / "data")
    seeded = run(server, "seed")
    assert run(server, "seed") == seeded
    server.start()
    try:
        with server.client(authorization=f"Bearer {seeded['key']}") as relay:
            event = {"clerkId": seeded["user"], "id": "resp_1", "totalTokens": 1}
            assert relay.post("/api/usage/events", json=event).status_code == 200
    finally:
        server.stop()


def test_a_core_that_is_not_in_the_data_is_seeded_by_the_primary_alone(tmp_path: Path) -> None:
    data, core = tmp_path / "data", tmp_path / "mount" / "core.db"
    core.parent.mkdir()
    where = {"DATA_DIR": str(data), "DATABASE_PATH": str(core), "REPLICATION": "litefs", "PRIMARY_REGION": "fra"}
    assert refusal(Server(data, FLY_REGION="ams", **where), "seed") == "This is a replica: run this at the primary."
    assert not core.exists()
    run(Server(data, FLY_REGION="fra", **where), "seed")
    assert rows_of(core, "SELECT plan FROM users WHERE id = 'dev-user'") == [("premium",)]
    assert not (data / "core.db").exists()


def test_production_cannot_be_seeded(tmp_path: Path) -> None:
    server = Server(tmp_path / "data", ENVIRONMENT="production", JWT_SECRET="secret")
    assert refusal(server, "seed") == "Only development is seeded; ENVIRONMENT is production"
    assert not server.data_dir.exists()


def test_a_command_needs_no_more_settings_than_where_the_data_is(tmp_path: Path) -> None:
    run(Server(tmp_path / "data"), "migrate")
    assert run(Server(tmp_path / "data", ENVIRONMENT="production", ADMIN_TOKEN=""), "keys", "list") == []
