"""What homes owe the core while the primary is away: it waits, and arrives once; what needs the primary is 503."""

from collections.abc import Callable

from tests.cluster.backing import rows
from tests.cluster.cast import until
from tests.homes.conftest import Guest, Homes
from tests.homes.spooling import owe_usage

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
    assert len(rows(machine_file, "SELECT 1 FROM spool WHERE kind = 'usage'")) == EVENTS
    fra.start()
    until(lambda: not rows(machine_file, "SELECT 1 FROM spool"), 30)
    assert not rows(machine_file, "SELECT 1 FROM refused")
    assert rows(fra.database, f"SELECT last_used_at_ms IS NOT NULL FROM api_keys WHERE id = '{key_id}'") == [(1,)]
    stored = rows(fra.database, "SELECT event_id FROM usage_logs ORDER BY id")
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
    until(lambda: len(rows(fra.database, events.format("webhook_events.id"))) >= 3, 30)
    assert sorted(row[0] for row in rows(fra.database, events.format("webhook_events.id"))) == [
        "after",
        "before",
        "during",
    ]
