"""/api/webhooks: who may have what told where, and the log of what was told."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from app.edge.clock import now_ms
from app.edge.database import Transaction
from app.webhooks import outbox, outbox_queries
from app.webhooks.outbox import Event, Outcome
from tests.projects.conftest import OPERATOR, Cast, Key, Person, delegate, grant, refused

PATH = "/api/webhooks"
URL = "https://example.com/hook"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def make(cast: Cast, who: Person | Key, **form: Any) -> dict[str, Any]:
    return cast.make(who, PATH, {"url": URL, "events": ["key.updated"], **form})


def listed(cast: Cast, who: Person | Key, query: str = "") -> list[str]:
    return [each["id"] for each in cast.get(who, PATH + query)["webhooks"]]


def happen(cast: Cast, instance_id: str, *ids: str) -> None:
    """Events that an instance hands over; nobody delivers them, for the address leads nowhere."""
    events = [Event(each, "key.updated", now_ms(), '{"key":"a"}') for each in ids]
    cast.beside(outbox.enqueue_instance_events, instance_id, events, now_ms())


def test_a_webhook_is_made_with_its_secret_and_listed_without(cast: Cast, alice: Person) -> None:
    project = cast.project(alice)
    made = make(cast, alice, projectId=project["id"], events=["key.created", "key.deleted", "key.created"])
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", made.pop("secret"))
    assert made == {
        "id": made["id"],
        "url": URL,
        "instanceId": None,
        "projectId": project["id"],
        "events": ["key.created", "key.deleted"],
        "enabled": True,
        "disabledReason": None,
        "droppedEvents": 0,
        "created_at": made["created_at"],
        "updated_at": made["created_at"],
    }
    assert abs(made["created_at"] - now_ms() // 1000) < 10
    assert cast.get(alice, PATH) == {"webhooks": [made]}
    assert cast.get(alice, f"{PATH}/{made['id']}") == made


def test_a_given_secret_is_used(cast: Cast, alice: Person) -> None:
    made = make(cast, alice, events=["usage.threshold"], secret=SECRET)
    assert made["secret"] == SECRET
    assert cast.rows("SELECT secret FROM webhooks WHERE id = ?", made["id"]) == [(SECRET,)]


def test_a_repeated_key_makes_one(cast: Cast, alice: Person) -> None:
    body = {"url": URL, "events": ["usage.threshold"]}
    first, second = (cast.call(alice, "POST", PATH, body, Idempotency_Key="once") for _ in range(2))
    assert (first.status_code, first.json()) == (second.status_code, second.json())
    assert first.headers["cache-control"] == "no-store"
    assert len(listed(cast, alice)) == 1


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ({"url": "ftp://example.com"}, "url"),
        ({"url": ""}, "url"),
        ({"url": None}, "url"),
        ({"url": "https://example.com/" + "x" * 2_048}, "url"),
        ({"events": []}, "events"),
        ({"events": ["key.renamed"]}, "events"),
        ({"events": "key.updated"}, "events"),
        ({"secret": "hunter2"}, "secret"),
        ({"instanceId": "a", "projectId": "b"}, "instanceId"),
    ],
    ids=str,
)
def test_a_malformed_webhook_is_400(cast: Cast, alice: Person, form: dict[str, Any], told: str) -> None:
    answer = cast.call(alice, "POST", PATH, {"url": URL, "events": ["usage.threshold"], **form})
    assert (answer.status_code, told in answer.json()["error"]) == (400, True)
    assert listed(cast, alice) == []


def test_a_place_that_is_not_there_is_404(cast: Cast, alice: Person) -> None:
    for form in ({"instanceId": "nothing"}, {"instanceId": "../x"}, {"projectId": "nothing"}):
        answer = cast.call(alice, "POST", PATH, {"url": URL, "events": ["key.updated"], **form})
        assert answer.status_code == 404, form


@pytest.mark.parametrize(
    ("permission", "status"), [(None, 404), ("read", 403), ("write", 403), ("admin", 201)], ids=str
)
def test_only_an_admin_of_the_place_makes_one(
    cast: Cast, alice: Person, bob: Person, permission: str | None, status: int
) -> None:
    project = cast.project(alice)
    if permission:
        cast.share(alice, f"projects/{project['id']}", permission, bob)
    for place in ({"projectId": project["id"]}, {"instanceId": project["defaultInstanceId"]}):
        answer = cast.call(bob, "POST", PATH, {"url": URL, "events": ["key.updated"], **place})
        assert answer.status_code == status


def test_an_admin_sees_and_removes_what_others_made_at_the_place(cast: Cast, alice: Person, bob: Person) -> None:
    project = cast.project(alice)
    cast.share(alice, f"projects/{project['id']}", "admin", bob)
    made = make(cast, bob, instanceId=project["defaultInstanceId"])["id"]
    assert listed(cast, alice) == []
    assert listed(cast, alice, f"?instanceId={project['defaultInstanceId']}") == [made]
    assert cast.call(alice, "DELETE", f"{PATH}/{made}").json() == {"success": True}
    assert listed(cast, bob) == []


Attempt = Callable[[str], tuple[str, str, Any]]
ATTEMPTS: tuple[Attempt, ...] = (
    lambda webhook: ("GET", f"{PATH}/{webhook}", None),
    lambda webhook: ("PATCH", f"{PATH}/{webhook}", {"url": "https://example.org/"}),
    lambda webhook: ("PUT", f"{PATH}/{webhook}", {"url": "https://example.org/"}),
    lambda webhook: ("DELETE", f"{PATH}/{webhook}", None),
    lambda webhook: ("GET", f"{PATH}/{webhook}/deliveries", None),
    lambda webhook: ("POST", f"{PATH}/{webhook}/deliveries/dlv_1/replay", None),
)


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_a_strangers_webhook_is_not_there(cast: Cast, alice: Person, bob: Person, attempt: Attempt) -> None:
    project = cast.project(alice)
    for place in ({}, {"projectId": project["id"]}, {"instanceId": project["defaultInstanceId"]}):
        made = make(cast, alice, **place)["id"]
        method, path, body = attempt(made)
        assert refused(cast.call(bob, method, path, body)) == (404, "Webhook not found")
        assert cast.call(None, method, path, body).status_code == 401
        assert cast.get(alice, f"{PATH}/{made}")["url"] == URL


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_an_unknown_webhook_is_404(cast: Cast, alice: Person, attempt: Attempt) -> None:
    for unknown in ("whk_unknown", "a b", "%2e%2e"):
        method, path, body = attempt(unknown)
        assert refused(cast.call(alice, method, path, body)) == (404, "Webhook not found")


def test_keys_do_what_their_permissions_and_scope_allow(cast: Cast, alice: Person) -> None:
    project = cast.project(alice)
    form = {"url": URL, "events": ["key.updated"]}
    place = {"instanceId": project["defaultInstanceId"]}
    narrow = cast.key(alice, "admin", scope=("instance", project["defaultInstanceId"]))
    assert cast.call(narrow, "POST", PATH, {**form, **place}).status_code == 201
    assert cast.call(narrow, "POST", PATH, form).status_code == 403
    assert cast.call(narrow, "GET", PATH).status_code == 403
    weak = cast.key(alice, "write")
    assert cast.call(weak, "POST", PATH, {**form, **place}).status_code == 403
    assert cast.call(weak, "POST", PATH, form).status_code == 403
    whole = cast.key(alice, "admin")
    assert cast.call(whole, "POST", PATH, form).status_code == 201


def test_what_has_no_user_makes_none(cast: Cast, alice: Person) -> None:
    instance_id = cast.project(alice)["defaultInstanceId"]
    sensor = delegate(cast, alice, can_read=True, can_write=True, can_system=True)
    grant(cast, alice, sensor, instance_id, "admin")
    form = {"url": URL, "events": ["key.updated"], "instanceId": instance_id}
    assert cast.call(sensor, "POST", PATH, form).status_code == 403
    assert cast.call(Key("operator", OPERATOR), "POST", PATH, form).status_code == 403
    assert cast.call(None, "POST", PATH, form).status_code == 401
    assert cast.call(None, "GET", PATH).status_code == 401


def test_a_change_leaves_what_it_does_not_name(cast: Cast, alice: Person) -> None:
    made = make(cast, alice)
    path = f"{PATH}/{made['id']}"
    assert cast.call(alice, "PATCH", path, {"url": "https://example.org/"}).json() == {"success": True}
    assert cast.call(alice, "PUT", path, {"events": ["key.created"]}).json() == {"success": True}
    assert cast.call(alice, "PATCH", path, {"secret": SECRET}).json() == {"success": True}
    changed = cast.get(alice, path)
    assert (changed["url"], changed["events"], changed["enabled"]) == ("https://example.org/", ["key.created"], True)
    assert cast.rows("SELECT secret FROM webhooks WHERE id = ?", made["id"]) == [(SECRET,)]
    for form in ({"url": "nothing"}, {"events": []}, {"secret": "x"}, {"enabled": "yes"}):
        assert cast.call(alice, "PATCH", path, form).status_code == 400


def test_a_webhook_is_paused_and_taken_up_again(cast: Cast, alice: Person) -> None:
    made = make(cast, alice)["id"]
    cast.call(alice, "PATCH", f"{PATH}/{made}", {"enabled": False})
    paused = cast.get(alice, f"{PATH}/{made}")
    assert (paused["enabled"], paused["disabledReason"]) == (False, "Paused")
    cast.call(alice, "PATCH", f"{PATH}/{made}", {"enabled": True})
    resumed = cast.get(alice, f"{PATH}/{made}")
    assert (resumed["enabled"], resumed["disabledReason"]) == (True, None)


def test_whoever_lost_the_place_removes_a_webhook_but_changes_none(cast: Cast, alice: Person, bob: Person) -> None:
    project = cast.project(alice)
    share = cast.share(alice, f"projects/{project['id']}", "admin", bob)
    made = make(cast, bob, projectId=project["id"])["id"]
    assert cast.call(alice, "DELETE", f"/api/shares/{share['id']}").status_code == 200
    assert cast.call(bob, "PATCH", f"{PATH}/{made}", {"enabled": True}).status_code == 404
    assert listed(cast, bob) == [made]
    assert cast.call(bob, "DELETE", f"{PATH}/{made}").status_code == 200


def settle_first(tx: Transaction, webhook_id: str) -> None:
    """As the deliverer does once an attempt has gone well."""
    (oldest, *_) = reversed(outbox_queries.list_deliveries(tx, webhook_id, 1 << 62, 10))
    due = outbox_queries.find_due(tx, oldest.id)
    assert due is not None
    outbox.settle(tx, due, Outcome(204, None), now_ms())


def test_the_log_tells_what_was_sent_and_how_it_went(cast: Cast, alice: Person) -> None:
    instance_id = cast.project(alice)["defaultInstanceId"]
    # Reserved for examples of documents, this network answers nobody.
    made = make(cast, alice, instanceId=instance_id, url="http://192.0.2.1/")["id"]
    happen(cast, instance_id, f"evt_1_{made}", f"evt_2_{made}", f"evt_3_{made}")
    cast.beside(settle_first, made)
    deliveries = cast.get(alice, f"{PATH}/{made}/deliveries")["deliveries"]
    assert [each["eventId"] for each in deliveries] == [f"evt_{number}_{made}" for number in (3, 2, 1)]
    assert {"type": "key.updated", "state": "delivered", "responseStatus": 204}.items() <= deliveries[-1].items()
    page = cast.call(alice, "GET", f"{PATH}/{made}/deliveries?limit=2")
    assert [each["id"] for each in page.json()["deliveries"]] == [each["id"] for each in deliveries[:2]]
    (following,) = re.findall(r"<([^>]+)>", page.headers["link"])
    assert [each["id"] for each in cast.get(alice, following)["deliveries"]] == [deliveries[2]["id"]]


def test_a_replay_is_due_at_once(cast: Cast, alice: Person) -> None:
    instance_id = cast.project(alice)["defaultInstanceId"]
    made = make(cast, alice, instanceId=instance_id, url="http://192.0.2.1/")["id"]
    other = make(cast, alice)["id"]
    happen(cast, instance_id, f"evt_{made}")
    cast.beside(settle_first, made)
    (done,) = cast.get(alice, f"{PATH}/{made}/deliveries")["deliveries"]
    path = f"deliveries/{done['id']}/replay"
    assert refused(cast.call(alice, "POST", f"{PATH}/{other}/{path}")) == (404, "Delivery not found")
    assert cast.call(alice, "POST", f"{PATH}/{made}/{path}").json() == {"success": True}
    (again,) = cast.get(alice, f"{PATH}/{made}/deliveries")["deliveries"]
    assert (again["state"], again["eventId"]) == ("pending", done["eventId"])
    cast.call(alice, "PATCH", f"{PATH}/{made}", {"enabled": False})
    assert refused(cast.call(alice, "POST", f"{PATH}/{made}/{path}")) == (409, "The webhook is disabled")


def test_webhooks_go_with_what_they_are_of(cast: Cast, alice: Person) -> None:
    project = cast.project(alice)
    make(cast, alice, projectId=project["id"])
    make(cast, alice, instanceId=project["defaultInstanceId"])
    of_account = make(cast, alice)["id"]
    assert cast.call(alice, "DELETE", f"/api/projects/{project['id']}").status_code == 200
    assert listed(cast, alice) == [of_account]
    cast.delete(alice)
    assert cast.rows("SELECT count(*) FROM webhooks WHERE user_id = ?", alice.id) == [(0,)]


def test_pages_of_any_origin_may_call_without_cookies(cast: Cast, alice: Person) -> None:
    answer = cast.call(alice, "GET", PATH, Origin="https://customer.example")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers
