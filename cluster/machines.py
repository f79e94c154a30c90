"""The machines: where each stands, and what it is told of itself and of the others."""

from pathlib import Path

from cluster.engines import Engine

# The first is the primary: the one candidate of a static lease.
REGIONS = {"m-fra": "fra", "m-ams": "ams", "m-nrt": "nrt"}
PRIMARY, AMS, NRT = REGIONS


def peers(ports: dict[str, int]) -> str:
    """PEERS, from the port at which each machine is found by the others."""
    return ",".join(f"{REGIONS[name]}/{name}=http://127.0.0.1:{port}" for name, port in ports.items())


def settings(engine: Engine, name: str, data: Path, peer_port: int, peers: str, secret: str) -> dict[str, str]:
    """The environment of one machine whose core comes by `engine`, with its own files in `data`."""
    return {
        "DATABASE_PATH": str(engine.database(name)),
        "DATA_DIR": str(data),
        "REPLICATION": "litefs",
        "LITEFS_HTTP": engine.url(name),
        "FLY_REGION": REGIONS[name],
        "FLY_MACHINE_ID": name,
        "PRIMARY_REGION": REGIONS[PRIMARY],
        "REPLAY": "forward",
        "PEERS": peers,
        "PEER_PORT": str(peer_port),
        "PEER_SECRET": secret,
        "JWT_SECRET": secret,
    }
