"""Regions: where this machine stands among the others, as the environment says."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

NONE, LITEFS = "none", "litefs"
FLY, FORWARD, OFF = "fly", "forward", "off"
DURABLE_OFF, DURABLE_CORE, DURABLE_ALL = "off", "core", "all"
PEER_PORT = 8788
SECRET_CHARACTERS = 32

_PEER = re.compile(r"(?P<region>[A-Za-z0-9-]+)/(?P<machine>[A-Za-z0-9_-]+)=(?P<url>https?://[^/\s]+)/?")


class Peer(NamedTuple):
    """Another machine, and where its peer port is asked."""

    region: str
    machine: str
    url: str


@dataclass(frozen=True, slots=True)
class Regions:
    """`peers` lists the machines outside Fly, this one among them; on Fly the platform's names find them."""

    region: str = "local"
    machine: str | None = None
    primary_region: str | None = None
    replication: str = NONE
    litefs_url: str = "http://127.0.0.1:20202"
    replay: str = OFF
    app_name: str | None = None
    private_address: str | None = None
    peer_port: int = PEER_PORT
    peer_secrets: tuple[str, ...] = field(default=(), repr=False)
    peers: tuple[Peer, ...] = ()

    @property
    def replicated(self) -> bool:
        return self.replication != NONE

    @property
    def clustered(self) -> bool:
        """Whether there are other machines to speak with."""
        return self.replicated or bool(self.peers)

    @property
    def in_primary_region(self) -> bool:
        return self.primary_region is None or self.primary_region == self.region

    @property
    def on_fly(self) -> bool:
        return self.app_name is not None and self.machine is not None and not self.peers


def read_regions(
    text: Callable[[str], str | None],
    parts: Callable[[str], tuple[str, ...]],
    number: Callable[[str, int], int],
) -> tuple[Regions, list[str]]:
    """What the environment says, and what is wrong with it."""
    peers, problems = _peers(parts("PEERS"))
    machine = text("FLY_MACHINE_ID")
    regions = Regions(
        region=text("FLY_REGION") or "local",
        machine=machine,
        primary_region=text("PRIMARY_REGION"),
        replication=text("REPLICATION") or NONE,
        litefs_url=(text("LITEFS_HTTP") or "http://127.0.0.1:20202").rstrip("/"),
        replay=text("REPLAY") or (FORWARD if peers else FLY if machine else OFF),
        app_name=text("FLY_APP_NAME"),
        private_address=text("FLY_PRIVATE_IP"),
        peer_port=number("PEER_PORT", PEER_PORT),
        peer_secrets=parts("PEER_SECRET"),
        peers=peers,
    )
    return regions, problems + _problems(regions)


def _peers(texts: tuple[str, ...]) -> tuple[tuple[Peer, ...], list[str]]:
    matches = [(text, _PEER.fullmatch(text)) for text in texts]
    peers = tuple(Peer(match["region"], match["machine"], match["url"]) for _, match in matches if match)
    wrong = [f"PEERS: {text!r} is not region/machine=http://host:port" for text, match in matches if not match]
    if len({peer.machine for peer in peers}) < len(peers):
        wrong.append("PEERS: each machine is listed once")
    return peers, wrong


def _problems(regions: Regions) -> list[str]:
    problems = []
    if regions.replication not in (NONE, LITEFS):
        problems.append(f"REPLICATION: expected none or litefs, got {regions.replication!r}")
    if regions.replay not in (FLY, FORWARD, OFF):
        problems.append(f"REPLAY: expected fly, forward or off, got {regions.replay!r}")
    if regions.replicated and not regions.primary_region:
        problems.append("PRIMARY_REGION is required with REPLICATION")
    if regions.replicated and not regions.machine:
        problems.append("FLY_MACHINE_ID is required with REPLICATION: each machine needs a name that stays")
    if regions.replicated and not regions.peer_secrets:
        problems.append("PEER_SECRET is required with REPLICATION")
    if regions.peers and not regions.peer_secrets:
        problems.append("PEER_SECRET is required with PEERS")
    if any(len(secret) < SECRET_CHARACTERS for secret in regions.peer_secrets):
        problems.append(f"PEER_SECRET: expected at least {SECRET_CHARACTERS} characters")
    return problems
