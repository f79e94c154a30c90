"""litestream.yml: what a person restores with, held against what the app's own Litestream is told."""

import dataclasses
import json
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import yaml

from app.edge import backup, litestream
from app.settings import read_settings
from tests.cluster.s3 import REGION, serving_s3
from tests.conftest import rows_of, serving

ROOT = Path(__file__).parent.parent
FILE = ROOT / "litestream.yml"
URL = "s3://bucket/prod"
# What an environment of the primary adds to fly.toml.
PLATFORM = {
    "FLY_REGION": "fra",
    "FLY_MACHINE_ID": "148e123",
    "FLY_APP_NAME": "litehouse",
    "PRIMARY_REGION": "fra",
    "JWT_SECRET": "j" * 32,
    "ADMIN_TOKEN": "a" * 32,
    "PEER_SECRET": "p" * 32,
    "LITESTREAM_REPLICA_URL": URL,
}


def restore(environ: dict[str, str], database: str, target: Path) -> None:
    """As docs/operations.md says under "Restore by hand"."""
    subprocess.run(
        [litestream.find_program(), "restore", "-config", str(FILE), "-o", str(target), database],
        env=litestream.environment() | environ,
        check=True,
        capture_output=True,
        timeout=60,
    )


def plans_of(database: Path) -> list[tuple[Any, ...]]:
    return rows_of(database, "SELECT name FROM plans ORDER BY name")


def test_it_says_the_paths_and_times_that_the_app_says(tmp_path: Path) -> None:
    deployed = tomllib.loads((ROOT / "fly.toml").read_text())["env"]
    settings = read_settings(deployed | PLATFORM)
    # The app names the ledger once there is one.
    begun = dataclasses.replace(settings, ledger_path=tmp_path / "ledger.db")
    begun.ledger_path.touch()
    told = json.loads(litestream.encode_config(settings.backup_socket, backup.list_sources(begun, URL), mounted=True))
    said = yaml.safe_load(FILE.read_text().replace("${LITESTREAM_REPLICA_URL}", URL))
    assert said["snapshot"] == told["snapshot"]
    ours = [
        {
            "path": db["path"].replace(str(begun.ledger_path), str(settings.ledger_path)),
            "meta-path": db["meta-path"],
            "replica": {name: db["replica"][name] for name in ("url", "sync-interval")},
        }
        for db in told["dbs"]
    ]
    assert said["dbs"] == ours


def test_it_holds_no_more_than_paths_and_times() -> None:
    said = yaml.safe_load(FILE.read_text())
    assert set(said) == {"snapshot", "dbs"}
    assert all(set(db) == {"path", "meta-path", "replica"} for db in said["dbs"])


def test_litestream_restores_the_apps_replica_with_it(tmp_path: Path) -> None:
    url = f"file://{tmp_path / 'replica'}"
    with serving(tmp_path / "data", LITESTREAM_REPLICA_URL=url) as server:
        server.stop()
        restore({"LITESTREAM_REPLICA_URL": url}, "/litefs/core.db", tmp_path / "core.db")
        assert plans_of(tmp_path / "core.db") == plans_of(server.data_dir / "core.db") != []


def test_a_bucket_that_is_not_amazons_is_named_beside_the_url(tmp_path: Path) -> None:
    with serving_s3(tmp_path / "buckets") as s3:
        environ = s3.environ | {
            "LITESTREAM_REPLICA_URL": s3.url("prod").partition("?")[0],
            "AWS_ENDPOINT_URL_S3": s3.endpoint,
            "AWS_REGION": REGION,
        }
        with serving(tmp_path / "data", **environ) as server:
            server.stop()
            restore(environ, "/litefs/core.db", tmp_path / "core.db")
            assert plans_of(tmp_path / "core.db") == plans_of(server.data_dir / "core.db") != []
            listed = server.command("backup", "status", "--json")
        assert [one["file"] for one in json.loads(listed.stdout)] == ["core"]
