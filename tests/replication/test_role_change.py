"""A role that changes under a running process: it ends, and is what it should be when it is started anew."""

import pytest

from cluster.engines import StandIn
from tests.cluster.cast import Cluster
from tests.waiting import until


@pytest.mark.parametrize("was_primary", [True, False])
def test_a_machine_whose_role_has_changed_ends_by_itself(stood_in_cluster: Cluster, was_primary: bool) -> None:
    """The lease is static, so this is an operator's doing; a process that went on would write where it must not."""
    engine = stood_in_cluster.engine
    assert isinstance(engine, StandIn)
    machine = stood_in_cluster.primary if was_primary else stood_in_cluster.replicas[0]
    process = machine.process
    assert process is not None
    engine.change_role(machine.name, is_primary=not was_primary)
    until(lambda: process.poll() is not None)
    assert process.returncode == 0
    assert "role_changed" in machine.log()
    assert all(other.get("/readyz").status_code == 200 for other in stood_in_cluster.machines if other is not machine)
