"""Settings: every environment variable, read once into a frozen value.

Each name may also come from `NAME_FILE`, a file that holds the value.
"""

import base64
import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from app.environment import Environment
from app.regions import DURABLE_ALL, DURABLE_CORE, DURABLE_OFF, NONE, Regions, read_regions

DEVELOPMENT = "development"
PRODUCTION = "production"
# What the kernel takes as the name of a socket.
SOCKET_PATH_BYTES = 107

_PUBLISHABLE_KEY = re.compile(r"pk_(?:test|live)_([A-Za-z0-9+/]+)=*")
# What stands for other characters in the name of a folder Litestream would take as it is written.
_REPLICA = re.compile(r"file:///[^\s%?#]+|(?!file:)[a-z0-9]+://\S+")
_HOST_AND_DOLLAR = re.compile(r"[A-Za-z0-9.-]+(?::\d{1,5})?\$")


class SettingsError(ValueError):
    """What the environment lacks or has wrong, all of it at once."""

    def __init__(self, problems: list[str]) -> None:
        listed = problems[0] if len(problems) == 1 else "\n".join(["", *(f"  - {line}" for line in problems)])
        super().__init__(f"The settings are not complete: {listed}")
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Clerk:
    issuer: str | None = None
    jwks_url: str | None = None
    jwt_key: str | None = field(default=None, repr=False)
    parties: tuple[str, ...] = ()
    secret_key: str | None = field(default=None, repr=False)
    publishable_key: str | None = None
    api_url: str = "https://api.clerk.com"
    webhook_secret: str | None = field(default=None, repr=False)
    allow_missing_azp: bool = False

    @property
    def frontend_url(self) -> str | None:
        """The address of the front-end API, which the publishable key holds as base64 of `host$`."""
        match = _PUBLISHABLE_KEY.fullmatch(self.publishable_key or "")
        if match is None:
            return None
        try:
            text = base64.b64decode(match[1] + "=" * (-len(match[1]) % 4), validate=True).decode("ascii")
        except ValueError:
            return None
        return f"https://{text[:-1]}" if _HOST_AND_DOLLAR.fullmatch(text) else None

    @property
    def configured(self) -> bool:
        """Whether any source of keys is set, so that tokens can be verified."""
        return bool(self.jwt_key or self.jwks_url or self.issuer or self.publishable_key or self.secret_key)


@dataclass(frozen=True, slots=True)
class Settings:
    environment: str = DEVELOPMENT
    host: str = "127.0.0.1"
    port: int = 8787
    data_dir: Path = Path("data")
    database_path: Path = Path("data/core.db")
    ledger_path: Path = Path("data/ledger.db")
    machine_path: Path = Path("data/machine.db")
    instances_dir: Path = Path("data/instances")
    history_days: int = 30
    history_changes: int = 100_000
    regions: Regions = field(default_factory=Regions)
    behind_fly: bool = False
    allowed_origins: tuple[str, ...] = ()
    admin_token: str | None = field(default=None, repr=False)
    admin_key: str | None = field(default=None, repr=False)
    metrics_token: str | None = field(default=None, repr=False)
    admin_user_ids: frozenset[str] = frozenset()
    jwt_secrets: tuple[str, ...] = field(default=(), repr=False)
    clerk: Clerk = Clerk()
    clerk_named: bool = False
    dev_user_forced: bool = False
    outbound_allow: tuple[str, ...] = ()
    backup_url: str | None = None
    backup_socket: Path = Path("data/litestream.sock")
    durable_ack: str = DURABLE_OFF
    log_level: str = "info"

    @property
    def production(self) -> bool:
        return self.environment == PRODUCTION

    @property
    def dev_user(self) -> bool:
        """Whether `dev-user` answers for requests without a credential."""
        return self.environment == DEVELOPMENT and (self.dev_user_forced or not self.clerk_named)


def read_settings(environ: Mapping[str, str] = os.environ, **given: object) -> Settings:
    """The settings of `environ`; `given` (host, port, data_dir of the command line) goes before it.

    Raises SettingsError, which names everything that is missing or wrong.
    """
    settings, problems = _read(environ, given)
    if problems:
        raise SettingsError(problems)
    return settings


def read_unchecked(environ: Mapping[str, str] = os.environ, *, data_dir: str | None = None) -> Settings:
    """What is said, also where it is not enough to serve: for who has to bring a server's data back."""
    return _read(environ, {"data_dir": data_dir})[0]


def _read(environ: Mapping[str, str], given: Mapping[str, object]) -> tuple[Settings, list[str]]:
    reader = Environment(environ)
    data_dir, database_path = _paths(reader, given.get("data_dir"))
    frontend = reader.parts("FRONTEND_URL") + reader.parts("EXTENSION_URL")
    listed = (*_with_www(frontend), "http://localhost:3000", "http://localhost:5173")
    regions, regional = read_regions(reader.text, reader.parts, reader.number)
    settings = Settings(
        environment=reader.text("ENVIRONMENT") or DEVELOPMENT,
        host=str(given.get("host") or reader.text("HOST") or "127.0.0.1"),
        port=reader.number("PORT", 8787) if given.get("port") is None else int(str(given["port"])),
        data_dir=data_dir,
        database_path=database_path,
        ledger_path=Path(reader.text("LEDGER_PATH") or data_dir / "ledger.db"),
        machine_path=data_dir / "machine.db",
        instances_dir=Path(reader.text("INSTANCES_DIR") or data_dir / "instances"),
        history_days=reader.number("HISTORY_DAYS", 30),
        history_changes=reader.number("HISTORY_CHANGES", 100_000),
        regions=regions,
        behind_fly=reader.text("FLY_MACHINE_ID") is not None,
        allowed_origins=reader.parts("ALLOWED_ORIGINS") or listed,
        admin_token=reader.text("ADMIN_TOKEN"),
        admin_key=reader.text("ADMIN_KEY"),
        metrics_token=reader.text("METRICS_TOKEN"),
        admin_user_ids=frozenset(reader.parts("ADMIN_USER_IDS")),
        jwt_secrets=reader.parts("JWT_SECRET"),
        clerk=Clerk(
            issuer=reader.text("CLERK_ISSUER"),
            jwks_url=reader.text("CLERK_JWKS_URL"),
            jwt_key=_pem(reader.text("CLERK_JWT_KEY")),
            # Where no front-end was named at all there is nothing to compare `azp` with.
            parties=reader.parts("CLERK_AUTHORIZED_PARTIES") or (listed if frontend else ()),
            secret_key=reader.text("CLERK_SECRET_KEY"),
            publishable_key=reader.text("CLERK_PUBLISHABLE_KEY"),
            api_url=(reader.text("CLERK_API_URL") or "https://api.clerk.com").rstrip("/"),
            webhook_secret=reader.text("CLERK_WEBHOOK_SECRET"),
            allow_missing_azp=reader.flag("CLERK_ALLOW_MISSING_AZP"),
        ),
        clerk_named=any(name.startswith("CLERK_") and value for name, value in environ.items()),
        dev_user_forced=reader.flag("DEV_USER"),
        outbound_allow=reader.parts("OUTBOUND_ALLOW"),
        backup_url=reader.text("LITESTREAM_REPLICA_URL"),
        backup_socket=Path(reader.text("LITESTREAM_SOCKET") or data_dir / "litestream.sock"),
        durable_ack=reader.text("DURABLE_ACK") or DURABLE_OFF,
        log_level=(reader.text("LOG_LEVEL") or "info").lower(),
    )
    return settings, list(dict.fromkeys(_problems(settings, reader) + regional + reader.problems))


class Paths(NamedTuple):
    """Where the files are, and whether the ledger's old rows leave the core."""

    data_dir: Path
    database_path: Path
    ledger_path: Path
    replicated: bool


def read_paths(environ: Mapping[str, str] = os.environ, *, data_dir: str | None = None) -> Paths:
    """All that a command needs, also where other settings are missing."""
    reader = Environment(environ)
    folder, database = _paths(reader, data_dir)
    ledger = Path(reader.text("LEDGER_PATH") or folder / "ledger.db")
    replicated = (reader.text("REPLICATION") or NONE) != NONE
    if reader.problems:
        raise SettingsError(reader.problems)
    return Paths(folder, database, ledger, replicated)


def read_place(environ: Mapping[str, str] = os.environ) -> Regions:
    """Where this machine stands, for a command: what else is missing or wrong is the server's to say."""
    reader = Environment(environ)
    return read_regions(reader.text, reader.parts, reader.number)[0]


def _paths(reader: Environment, given: object) -> tuple[Path, Path]:
    folder = Path(str(given or reader.text("DATA_DIR") or "data"))
    # A folder on the command line is meant whole: it goes before DATABASE_PATH too.
    database = None if given else reader.text("DATABASE_PATH")
    return folder, Path(database or folder / "core.db")


def _problems(settings: Settings, reader: Environment) -> list[str]:
    problems = []
    if settings.environment not in (DEVELOPMENT, PRODUCTION, "test", "staging"):
        problems.append(f"ENVIRONMENT: expected development, test, staging or production, got {settings.environment!r}")
    if settings.log_level not in ("debug", "info", "warning", "error"):
        problems.append(f"LOG_LEVEL: expected debug, info, warning or error, got {settings.log_level!r}")
    if settings.durable_ack not in (DURABLE_OFF, DURABLE_CORE, DURABLE_ALL):
        problems.append(f"DURABLE_ACK: expected off, core or all, got {settings.durable_ack!r}")
    if settings.durable_ack != DURABLE_OFF and not settings.backup_url:
        problems.append("DURABLE_ACK needs LITESTREAM_REPLICA_URL")
    if not settings.history_days or not settings.history_changes:
        problems.append("HISTORY_DAYS and HISTORY_CHANGES: expected at least 1")
    if settings.backup_url and not _REPLICA.fullmatch(settings.backup_url):
        problems.append("LITESTREAM_REPLICA_URL: expected file:///folder, without spaces and %, or s3://bucket/prefix")
    if settings.backup_url and len(os.fsencode(settings.backup_socket.absolute())) > SOCKET_PATH_BYTES:
        problems.append(f"LITESTREAM_SOCKET: a socket's path has at most {SOCKET_PATH_BYTES} bytes")
    if settings.regions.clustered:
        problems += _wrong_in_a_cluster(settings)
    for network in settings.outbound_allow:
        try:
            ipaddress.ip_network(network)
        except ValueError:
            problems.append(f"OUTBOUND_ALLOW: {network!r} is not a network such as 127.0.0.0/8")
    if settings.clerk.publishable_key and not settings.clerk.frontend_url:
        problems.append("CLERK_PUBLISHABLE_KEY: expected pk_test_ or pk_live_ and base64 of the front-end's host and $")
    if settings.production:
        problems += _missing_in_production(settings, reader.text)
    if settings.dev_user_forced and settings.dev_user and not _is_loopback(settings.host):
        problems.append(f"DEV_USER=1 answers for everybody: HOST must be a loopback address, got {settings.host}")
    return problems


def _wrong_in_a_cluster(settings: Settings) -> list[str]:
    problems, regions = [], settings.regions
    if settings.port == regions.peer_port:
        problems.append("PEER_PORT: expected another port than PORT")
    if not settings.jwt_secrets and not settings.production:
        problems.append("JWT_SECRET is required with REPLICATION or PEERS: each machine reads what others have signed")
    if regions.on_fly and (settings.backup_url or "").startswith("file:"):
        problems.append("LITESTREAM_REPLICA_URL: a folder is on one machine alone, and is lost with it; s3://… is not")
    if regions.replicated:
        # The files' own names: LiteFS replicates all that is in its folder, and takes databases only.
        mount = settings.database_path.absolute().parent
        own = {
            "DATA_DIR": settings.data_dir,
            "LEDGER_PATH": settings.ledger_path,
            "INSTANCES_DIR": settings.instances_dir,
        }
        inside = [name for name, path in own.items() if path.absolute().is_relative_to(mount)]
        if inside:
            problems.append(f"{', '.join(inside)}: expected on the volume, not in {mount}, which DATABASE_PATH is on")
    return problems


def _missing_in_production(settings: Settings, text: Callable[[str], str | None]) -> list[str]:
    missing = [f"{name} is required" for name in ("JWT_SECRET", "ADMIN_TOKEN") if not text(name)]
    if settings.clerk_named and not settings.clerk.configured:
        missing.append(
            "one of CLERK_JWT_KEY, CLERK_JWKS_URL, CLERK_ISSUER, CLERK_PUBLISHABLE_KEY, CLERK_SECRET_KEY is required"
        )
    if bool(text("GITHUB_CLIENT_ID")) != bool(text("GITHUB_CLIENT_SECRET")):
        missing.append("GITHUB_CLIENT_ID and GITHUB_CLIENT_SECRET belong together")
    if text("RESEND_API_KEY") and not text("MAIL_FROM"):
        missing.append("MAIL_FROM is required with RESEND_API_KEY")
    return missing


def _with_www(urls: tuple[str, ...]) -> tuple[str, ...]:
    """Each URL as an origin, and the `www.` form of those that are web addresses with a name."""
    listed = []
    for url in urls:
        origin = url.rstrip("/")
        listed.append(origin)
        scheme, _, host = origin.partition("://")
        if scheme == "https" and not host.startswith("www."):
            listed.append(f"{scheme}://www.{host}")
    return tuple(listed)


def _pem(text: str | None) -> str | None:
    """A PEM whose line ends were written as `\\n`, as platforms' secret stores do."""
    return text.replace("\\n", "\n") if text else None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
