"""The release of this tree with its times shortened, so that a test need not wait for them; started by tests.

LEASE_SECONDS, REFUSED_SECONDS and OPEN_INSTANCES are the test's where it sets them.
"""

import os

import app  # noqa: F401 - before anything that could load another SQLite
from app.edge import forward, lease, peers, tunnel

# Before the modules that take these over by name.
lease.LEASE_SECONDS = float(os.environ.get("LEASE_SECONDS", lease.LEASE_SECONDS))
forward.FIRST_CARE_SECONDS = tunnel.ANSWER_SECONDS = peers.PING_SECONDS = 0.5

if __name__ == "__main__":
    from app import cli
    from app.edge import machines
    from app.instances.hubs import OPEN_INSTANCES, Hubs
    from app.ops import chores

    machines.REFUSED_SECONDS = float(os.environ.get("REFUSED_SECONDS", machines.REFUSED_SECONDS))
    chores.HOUSEKEEPING_SECONDS = 0.2
    bounds = Hubs.__init__.__kwdefaults__
    assert bounds["most_open"] == OPEN_INSTANCES
    bounds["most_open"] = int(os.environ.get("OPEN_INSTANCES", OPEN_INSTANCES))
    cli.main()
