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
    if text("LITEFS_HTTP") and not regions.replicated:
        problems.append("LITEFS_HTTP needs REPLICATION=litefs: without it the app must not write to LiteFS's mount")
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
    if any(len(secret) < SECRET_CHARACTERS for secret in regions.peer_secrets):
        problems.append(f"PEER_SECRET: expected at least {SECRET_CHARACTERS} characters")
    if regions.replay == FLY and not regions.machine:
        problems.append("REPLAY=fly needs FLY_MACHINE_ID, which Fly sets: elsewhere it is REPLAY=forward")
    if regions.clustered:
        problems += _lacking(regions)
    if regions.peers:
        problems += _misplaced(regions)
    if not regions.replicated and not regions.in_primary_region:
        problems.append(
            f"PRIMARY_REGION={regions.primary_region} is not FLY_REGION={regions.region}: without REPLICATION=litefs "
            "each would write a core of its own"
        )
    return problems


def _lacking(regions: Regions) -> list[str]:
    """What a machine that is one of several needs and has not."""
    why = "REPLICATION" if regions.replicated else "PEERS"
    problems = []
    if regions.replicated and not regions.primary_region:
        problems.append("PRIMARY_REGION is required with REPLICATION")
    if not regions.machine:
        problems.append(f"FLY_MACHINE_ID is required with {why}: each machine needs a name that stays")
    if not regions.peer_secrets:
        problems.append(f"PEER_SECRET is required with {why}")
    if regions.replay == OFF and regions.machine:
        problems.append(f"REPLAY=off with {why}: nothing would reach the machine that can answer it; fly or forward")
    if regions.replicated and not regions.in_primary_region and not regions.peers and not regions.on_fly:
        problems.append("A replica has to find the primary: by FLY_APP_NAME on Fly, by PEERS elsewhere")
    return problems


def _misplaced(regions: Regions) -> list[str]:
    """What is wrong with this machine's place among the peers."""
    problems = []
    here = (regions.region, regions.machine)
    if regions.machine and here not in [(peer.region, peer.machine) for peer in regions.peers]:
        problems.append(f"PEERS: this machine, {regions.region}/{regions.machine}, has to be among them")
    if len(regions.peers) > 1 and not regions.replicated:
        problems.append("PEERS with several machines needs REPLICATION=litefs: each would write a core of its own")
    primary = regions.primary_region
    candidates = [peer.machine for peer in regions.peers if peer.region == primary]
    if primary and len(candidates) != 1:
        listed = f" ({', '.join(candidates)})" if candidates else ""
        problems.append(f"PEERS: exactly one machine is in PRIMARY_REGION={primary}, got {len(candidates)}{listed}")
    return problems
