"""What homes owe the core while the primary is away: it waits, and arrives once; what needs the primary is 503."""

import signal
from collections.abc import Callable

import pytest

from app.identity.users import DEV_USER
from tests.conftest import rows_of
from tests.homes.conftest import Guest, Homes, kill_all
from tests.homes.spooling import owe_usage
from tests.waiting import until

Guests = Callable[[str], Guest]
EVENTS = 20


def test_hubs_go_on_while_the_primary_is_away_and_what_they_owe_arrives_once(homes: Homes, guests: Guests) -> None:
    fra, ams, _ = homes.machines
    room = homes.room("ams")
    guest = guests(room)
    guest.come_back([ams])
    guest.set("before", 1)
    key_id, key = homes.make_key()
    until(lambda: ams.get("/api/projects", Authorization=f"Bearer {key}").status_code == 200)
    machine_file = ams.data_dir / "machine.db"
    fra.stop()
    guest.set("during", 2)
    # Its use is owed too, and wakes the spool.
    assert ams.get(f"/api/instances/{room}/keys", Authorization=f"Bearer {key}").status_code == 200
    assert ams.get(f"/api/instances/{room}/keys/during").json()["value"] == 2
    refused = ams.post("/api/projects", {"name": "never"})
    assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
    owed = [owe_usage(machine_file, number) for number in range(EVENTS)]
    owe_usage(machine_file, 0)
    assert len(rows_of(machine_file, "SELECT 1 FROM spool WHERE kind = 'usage'")) == EVENTS
    fra.start()
    until(lambda: not rows_of(machine_file, "SELECT 1 FROM spool"), 30)
    assert not rows_of(machine_file, "SELECT 1 FROM refused")
    assert rows_of(fra.database, f"SELECT last_used_at_ms IS NOT NULL FROM api_keys WHERE id = '{key_id}'") == [(1,)]
    stored = rows_of(fra.database, "SELECT event_id FROM usage_logs ORDER BY id")
    assert [row[0] for row in stored] == owed
    guest.set("after", 3)
    assert guest.values == {"before": 1, "during": 2, "after": 3}


def test_webhooks_hear_once_what_happened_at_a_home_while_the_primary_was_away(homes: Homes, guests: Guests) -> None:
    fra, ams, _ = homes.machines
    room = homes.room("ams")
    hook = {"url": "https://example.com/hook", "events": ["key.created"], "instanceId": room}
    made = fra.post("/api/webhooks", hook)
    assert made.status_code == 201, made.text
    until(lambda: ams.has(made.headers["x-txid"]))
    guest = guests(room)
    guest.come_back([ams])
    guest.set("before", 1)
    fra.stop()
    guest.set("during", 2)
    fra.start()
    guest.set("after", 3)
    events = "SELECT json_extract(payload, '$.data.key') FROM webhook_events JOIN webhook_deliveries ON event_id = {}"
    until(lambda: len(rows_of(fra.database, events.format("webhook_events.id"))) >= 3, 30)
    assert sorted(row[0] for row in rows_of(fra.database, events.format("webhook_events.id"))) == [
        "after",
        "before",
        "during",
    ]


def test_a_machine_that_stops_leaves_nothing_owed(hasty: Homes) -> None:
    """What would be lost where it never comes back: what it heard of last, and what came while it ended."""
    fra, ams, _ = hasty.machines
    machine_file = ams.data_dir / "machine.db"
    # Put there by somebody else, so it wakes nobody.
    owed = owe_usage(machine_file, 10_000)
    ams.stop()
    try:
        assert not rows_of(machine_file, "SELECT 1 FROM spool")
        assert rows_of(fra.database, f"SELECT count(*) FROM usage_logs WHERE event_id = '{owed}'") == [(1,)]
    finally:
        ams.start()
        until(lambda: ams.health()["leaseMs"])


@pytest.mark.parametrize("away", [signal.SIGSTOP, signal.SIGKILL])
def test_a_home_that_is_killed_while_the_primary_is_away_owes_what_it_did_and_pays_once(
    hasty: Homes, guests: Guests, away: signal.Signals
) -> None:
    """What was sent to a primary that sleeps is sent again by the home that was killed: both arrive."""
    fra, ams, nrt = hasty.machines
    room = hasty.room("ams")
    made = fra.post("/api/webhooks", {"url": "https://example.com/hook", "events": ["key.created"], "instanceId": room})
    key_id, key = hasty.make_key()
    until(lambda: nrt.has(made.headers["x-txid"]))
    guest, newcomer = guests(room), guests(room)
    guest.come_back([nrt])
    guest.set("before", 1)
    machine_file = ams.data_dir / "machine.db"
    waiting = "SELECT count(DISTINCT kind) FROM spool"
    until(lambda: rows_of(machine_file, waiting) == [(0,)])
    quota = ams.get("/api/usage/quota")
    assert quota.status_code == 200
    assert fra.process is not None
    fra.process.send_signal(away)
    # Sockets go on, also for who comes now and by another machine; so do reads.
    guest.set("during", 2)
    newcomer.come_back([nrt])
    assert newcomer.values == {"before": 1, "during": 2}
    assert ams.get("/api/usage/quota").json() == quota.json()
    event = {"userId": DEV_USER, "responseId": f"refused-{away}", "inputTokens": 1, "outputTokens": 2}
    for path, body in (("/api/usage/events", event), ("/api/projects", {"name": "never"})):
        refused = ams.post(path, body)
        assert (refused.status_code, "retry-after" in refused.headers) == (503, True), refused.text
    assert ams.get(f"/api/instances/{room}/keys", Authorization=f"Bearer {key}").status_code == 200
    owed = [owe_usage(machine_file, number) for number in range(100 * away, 100 * away + EVENTS)]
    until(lambda: rows_of(machine_file, waiting) == [(3,)])
    kill_all(ams)
    ams.start()
    assert rows_of(machine_file, waiting) == [(3,)]
    if away is signal.SIGKILL:
        fra.process.wait()
        fra.start()
    else:
        fra.process.send_signal(signal.SIGCONT)
    until(lambda: rows_of(machine_file, waiting) == [(0,)], 30)
    assert not rows_of(machine_file, "SELECT 1 FROM refused")
    told = "SELECT json_extract(payload, '$.data.key') FROM webhook_events WHERE payload LIKE '%{}%' ORDER BY 1"
    assert rows_of(fra.database, told.format(room)) == [("before",), ("during",)]
    assert rows_of(fra.database, f"SELECT last_used_at_ms IS NOT NULL FROM api_keys WHERE id = '{key_id}'") == [(1,)]
    stored = rows_of(fra.database, "SELECT event_id FROM usage_logs ORDER BY id")
    assert [row[0] for row in stored][-EVENTS:] == owed
    guest.come_back([nrt])
    assert (guest.values, guest.syncs) == ({"before": 1, "during": 2}, 1)
