"""The release of this tree whose leases last LEASE_SECONDS, and which finds out sooner who sleeps; started by tests."""

import os

import app  # noqa: F401 - before anything that could load another SQLite
from app.edge import forward, lease, peers, tunnel

# Before the modules that take these over by name.
lease.LEASE_SECONDS = float(os.environ["LEASE_SECONDS"])
forward.FIRST_CARE_SECONDS = tunnel.ANSWER_SECONDS = peers.PING_SECONDS = 0.5

if __name__ == "__main__":
    from app import cli

    cli.main()
