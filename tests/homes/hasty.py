"""The release of this tree with its times shortened, so that a test need not wait for them; started by tests.

What is a name in capitals here is the test's where its environment says so.
"""

import os

import app  # noqa: F401 - before anything that could load another SQLite
from app.edge import forward, lease, peers, tunnel

# Before the modules that take these over by name.
lease.LEASE_SECONDS = float(os.environ.get("LEASE_SECONDS", lease.LEASE_SECONDS))
forward.FIRST_CARE_SECONDS = tunnel.ANSWER_SECONDS = peers.PING_SECONDS = 0.5

if __name__ == "__main__":
    from app import cli
    from app.edge import liveness, registry
    from app.instances import homecoming, hubs, leftovers
    from app.ops import chores

    for module, name in (
        (liveness, "REFUSED_SECONDS"),
        (registry, "STEADY_SECONDS"),
        (hubs, "IDLE_SECONDS"),
        (hubs, "SWEEP_SECONDS"),
        (homecoming, "LOOK_SECONDS"),
        (leftovers, "LOOK_SECONDS"),
    ):
        setattr(module, name, float(os.environ.get(name, getattr(module, name))))
    chores.HOUSEKEEPING_SECONDS = 0.2
    bounds = hubs.Hubs.__init__.__kwdefaults__
    assert bounds["most_open"] == hubs.OPEN_INSTANCES
    bounds["most_open"] = int(os.environ.get("OPEN_INSTANCES", hubs.OPEN_INSTANCES))
    cli.main()
