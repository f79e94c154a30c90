"""Settings: everything that is wrong at once, from names or files, and no secret in a repr."""

from pathlib import Path

import pytest

from app.settings import SettingsError, read_settings

PRODUCTION = {"ENVIRONMENT": "production", "JWT_SECRET": "j", "ADMIN_TOKEN": "a"}


def problems(environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        read_settings(environ)
    assert all(line in str(refused.value) for line in refused.value.problems)
    return refused.value.problems


def test_nothing_set_is_a_development_server_on_loopback() -> None:
    settings = read_settings({})
    assert (settings.environment, settings.host, settings.port) == ("development", "127.0.0.1", 8787)
    assert (settings.database_path, settings.dev_user) == (Path("data/core.db"), True)


def test_production_names_everything_that_is_missing_at_once() -> None:
    found = problems(
        {
            "ENVIRONMENT": "production",
            "CLERK_API_URL": "https://clerk.test",
            "GITHUB_CLIENT_ID": "id",
            "RESEND_API_KEY": "re",
            "PORT": "http",
            "HISTORY_CHANGES": "0",
            "LOG_LEVEL": "loud",
            "OUTBOUND_ALLOW": "10.0.0.0/33",
        }
    )
    for name in (
        "JWT_SECRET",
        "ADMIN_TOKEN",
        "CLERK_SECRET_KEY",
        "GITHUB_CLIENT_SECRET",
        "MAIL_FROM",
        "PORT",
        "HISTORY_CHANGES",
        "LOG_LEVEL",
        "OUTBOUND_ALLOW",
    ):
        assert any(name in line for line in found), name
    assert len(found) == len(set(found))


def test_production_with_what_it_needs_starts_without_a_development_user() -> None:
    settings = read_settings(PRODUCTION)
    assert settings.production
    assert not settings.dev_user


@pytest.mark.parametrize("name", ["CLERK_JWT_KEY", "CLERK_JWKS_URL", "CLERK_ISSUER", "CLERK_SECRET_KEY"])
def test_one_source_of_clerk_keys_is_enough(name: str) -> None:
    assert read_settings(PRODUCTION | {name: "https://clerk.test"}).clerk.configured
    without = PRODUCTION | {"CLERK_WEBHOOK_SECRET": "whsec_x"}
    assert any("CLERK_JWT_KEY" in line for line in problems(without))


def test_the_development_user_leaves_when_clerk_arrives_and_is_forced_on_loopback_only() -> None:
    clerk = {"CLERK_ISSUER": "https://clerk.test"}
    assert not read_settings(clerk).dev_user
    assert read_settings(clerk | {"DEV_USER": "1"}).dev_user
    assert any("DEV_USER" in line for line in problems(clerk | {"DEV_USER": "1", "HOST": "0.0.0.0"}))
    assert not read_settings(PRODUCTION | {"DEV_USER": "1"}).dev_user


def test_a_name_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("from the file\n")
    assert read_settings({"ADMIN_TOKEN_FILE": str(file)}).admin_token == "from the file"
    assert read_settings({"ADMIN_TOKEN_FILE": str(file), "ADMIN_TOKEN": "given"}).admin_token == "given"


def test_a_file_that_cannot_be_read_is_named_once(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    found = problems(
        PRODUCTION | {"JWT_SECRET": "", "JWT_SECRET_FILE": str(tmp_path / "none"), "ADMIN_KEY_FILE": str(binary)}
    )
    assert sum("JWT_SECRET_FILE" in line for line in found) == 1
    assert sum("ADMIN_KEY_FILE" in line for line in found) == 1


@pytest.mark.parametrize("text", ["http", "-1", "80.0", "²", "٣"])
def test_a_port_is_a_whole_number(text: str) -> None:
    assert any(line.startswith("PORT:") for line in problems({"PORT": text}))


def test_no_secret_is_in_a_repr() -> None:
    secrets = {
        name: f"secret-{name}"
        for name in (
            "ADMIN_TOKEN",
            "ADMIN_KEY",
            "METRICS_TOKEN",
            "JWT_SECRET",
            "CLERK_JWT_KEY",
            "CLERK_SECRET_KEY",
            "CLERK_WEBHOOK_SECRET",
        )
    }
    settings = read_settings(secrets)
    assert settings.admin_token == "secret-ADMIN_TOKEN"
    assert "secret-" not in repr(settings)


def test_a_problem_never_quotes_a_secret(tmp_path: Path) -> None:
    found = problems(PRODUCTION | {"JWT_SECRET": "secret-j", "ADMIN_TOKEN": "secret-a", "PORT": "x"})
    assert not any("secret-" in line for line in found)


def test_listed_origins_default_to_the_front_ends_and_their_www_form() -> None:
    settings = read_settings({"FRONTEND_URL": "https://app.test/", "EXTENSION_URL": "chrome-extension://abc"})
    expected = (
        "https://app.test",
        "https://www.app.test",
        "chrome-extension://abc",
        "http://localhost:3000",
        "http://localhost:5173",
    )
    assert settings.allowed_origins == settings.clerk.parties == expected
    # Where no front-end is named there is nothing to compare a token's party with.
    assert read_settings({}).clerk.parties == ()


def test_the_command_line_goes_before_the_environment() -> None:
    settings = read_settings({"PORT": "1", "HOST": "0.0.0.0", "DATA_DIR": "x"}, port=2, host="::1", data_dir="y")
    assert (settings.port, settings.host, settings.data_dir) == (2, "::1", Path("y"))


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        read_settings({}).port = 1  # type: ignore[misc]


@pytest.mark.parametrize("url", ["/backup", "file://backup", "file:///my backup", "file:///my%20backup", "s3:bucket"])
def test_a_replica_is_a_folder_or_a_bucket(url: str) -> None:
    assert [line for line in problems({"LITESTREAM_REPLICA_URL": url}) if "LITESTREAM_REPLICA_URL" in line]
    for fine in ("file:///backup/prod", "s3://bucket/prod?endpoint=https://host&region=auto", "gs://bucket/prod"):
        assert read_settings({"LITESTREAM_REPLICA_URL": fine}).backup_url == fine


def test_a_socket_whose_name_the_kernel_does_not_take_is_named_where_a_backup_needs_it() -> None:
    long = {"LITESTREAM_SOCKET": f"/{'s' * 107}"}
    assert read_settings(long).backup_url is None
    assert any("LITESTREAM_SOCKET" in line for line in problems(long | {"LITESTREAM_REPLICA_URL": "file:///backup"}))
