"""GET /admin: the operator's page, in a browser that sees what another client writes."""

import itertools
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from app.edge.database import Database, Transaction
from app.identity import queries as identity
from app.ops import admin_figures, admin_plot, admin_queries
from app.ops.admin_figures import DAY_MS
from app.ops.admin_page import INSTANCES_PAGE
from app.ops.admin_queries import Day
from app.usage import ledger
from app.usage.events import read_event
from app.usage.ledger import Poster
from app.usage.wire import Wire
from tests.conftest import ADMIN_TOKEN, Server, serving
from tests.instances.conftest import joined
from tests.waiting import SOON_SECONDS, until

BROWSER = "chromium"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--remote-debugging-port=0",
)
START_SECONDS = 30.0
STOP_SECONDS = 10.0
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
# 21 November 2026.
NOON = 1_795_262_400_000


class Tab:
    """A tab, driven by the devtools protocol."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while (said := json.loads(self._socket.recv(timeout=SOON_SECONDS))).get("id") != number:
            pass
        assert "error" not in said, said
        result: dict[str, Any] = said["result"]
        return result

    def run(self, script: str) -> Any:
        return self.call("Runtime.evaluate", expression=script)["result"].get("value")

    def enter(self, url: str) -> None:
        """Past the door of a server's page."""
        self.open(f"{url}/admin")
        self.run(f"document.getElementById('token').value = {ADMIN_TOKEN!r}; document.forms[0].requestSubmit()")
        self.until("document.querySelector('nav') !== null")

    def type(self, key: str, text: str) -> None:
        """Have somebody write into a key's text."""
        place = f"document.querySelector('[data-key={key}] textarea')"
        self.run(f"{place}.value = {json.dumps(text)}; {place}.dispatchEvent(new Event('input'))")

    def click(self, selector: str) -> None:
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def until(self, script: str) -> None:
        """Wait until a script is true of the page."""
        until(lambda: self.run(script), told=lambda: f"{script}\n{self.run('document.body.innerText')}")

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.until(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")


@contextmanager
def browsing(folder: Path) -> Iterator[Tab]:
    if shutil.which(BROWSER) is None:
        problem = f"{BROWSER} not found: the operator's page was not looked at"
        pytest.fail(problem) if os.environ.get("CI") == "true" else pytest.skip(problem)
    with (folder.parent / "browser.log").open("wb") as log:
        process = subprocess.Popen(
            [BROWSER, *FLAGS, f"--user-data-dir={folder}", "about:blank"], stdout=log, stderr=log
        )
    try:
        with connect(_address_of_tab(folder), proxy=None, max_size=None) as socket:
            yield Tab(socket)
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def _address_of_tab(folder: Path) -> str:
    told, log = folder / "DevToolsActivePort", folder.parent / "browser.log"
    until(lambda: told.exists() and "\n" in told.read_text(), START_SECONDS, log.read_text)
    port = told.read_text().split()[0]
    tabs = httpx.get(f"http://127.0.0.1:{port}/json/list", trust_env=False, timeout=START_SECONDS).json()
    address: str = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
    return address


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("admin") / "data") as running:
        yield running


def enter(client: httpx.Client, token: str = ADMIN_TOKEN) -> httpx.Response:
    return client.post("/admin", data={"token": token})


def test_a_key_that_another_client_sets_appears_and_the_page_edits_it(server: Server, tmp_path: Path) -> None:
    with joined(server, "watched") as writer, browsing(tmp_path / "profile") as tab:
        tab.enter(server.url)
        tab.until("document.querySelector('a[href=\"/admin/instances/watched\"]') !== null")
        assert tab.run("document.cookie") == ""
        tab.open(f"{server.url}/admin/instances/watched")
        tab.until("document.getElementById('state').textContent === 'live'")
        writer.say("set", key="greeting", value="<b>hello</b>", timestamp=1)
        tab.until("document.querySelector('[data-key=greeting] textarea')?.value === '<b>hello</b>'")
        tab.until("document.getElementById('history').innerText.includes('dev-user')")
        writer.until("key_updated")
        tab.run(
            "document.querySelector('[data-key=greeting] textarea').value = 'goodbye';"
            "document.querySelector('[data-key=greeting] button').click()"
        )
        assert writer.until("key_updated")[-1]["value"] == "goodbye"
        tab.until("document.getElementById('history').innerText.includes('operator')")


def test_what_somebody_changed_meanwhile_is_shown_and_not_overwritten(server: Server, tmp_path: Path) -> None:
    news, save = "document.querySelector('[data-key=plan] .news')", "[data-key=plan] .save"
    with joined(server, "contested") as writer, browsing(tmp_path / "profile") as tab:
        writer.say("set", key="plan", value="first", timestamp=1)
        writer.until("key_updated")
        tab.enter(server.url)
        tab.open(f"{server.url}/admin/instances/contested")
        tab.until("shown.get('plan')?.base === 1")
        tab.type("plan", "the operator's")
        writer.say("set", key="plan", value="another's", timestamp=1)
        assert writer.until("key_updated")[-1]["seq"] == 2
        tab.until(f'!{news}.hidden && {news}.innerText.includes("another\'s")')
        assert tab.run("document.querySelector('[data-key=plan] textarea').value") == "the operator's"
        # The text still comes of the first change, so the second is not overwritten by this.
        tab.click(save)
        tab.until(f"{news}.innerText.includes('Not saved')")
        assert [frame["type"] for frame in writer.settle()] == []
        tab.click("[data-key=plan] .news .quiet")
        assert writer.until("key_updated")[-1]["value"] == "the operator's"
        tab.until(f"{news}.hidden && !document.querySelector('[data-key=plan]').classList.contains('dirty')")


def test_an_edit_that_crosses_another_is_refused_and_shown(server: Server, tmp_path: Path) -> None:
    """The page has not heard of the other change when it sends its own."""
    with joined(server, "crossing") as writer, browsing(tmp_path / "profile") as tab:
        writer.say("set", key="plan", value={"step": 1}, timestamp=1)
        writer.until("key_updated")
        tab.enter(server.url)
        tab.open(f"{server.url}/admin/instances/crossing")
        tab.until("shown.get('plan')?.base === 1")
        tab.run("socket.send = ((send) => function (text) { held = [() => send.call(this, text)]; })(socket.send)")
        tab.type("plan", '{"step": "mine"}')
        tab.click("[data-key=plan] .save")
        tab.until("typeof held === 'object'")
        writer.say("set", key="plan", value={"step": 2}, timestamp=1)
        assert writer.until("key_updated")[-1]["seq"] == 2
        tab.run("held[0]()")
        tab.until("document.querySelector('[data-key=plan] .news').innerText.includes('Not saved')")
        assert writer.settle() == []
        tab.click("[data-key=plan] .news button")
        assert json.loads(tab.run("document.querySelector('[data-key=plan] textarea').value")) == {"step": 2}


def test_neither_a_deletion_nor_a_new_key_goes_over_what_is_there(server: Server, tmp_path: Path) -> None:
    with joined(server, "kept") as writer, browsing(tmp_path / "profile") as tab:
        writer.say("set", key="plan", value="first", timestamp=1)
        writer.until("key_updated")
        tab.enter(server.url)
        tab.open(f"{server.url}/admin/instances/kept")
        tab.until("shown.get('plan')?.base === 1")
        tab.run("adding.elements.key.value = 'plan'; adding.elements.value.value = 'mine'; adding.requestSubmit()")
        tab.until("adding.querySelector('.problem').innerText.includes('already')")
        tab.type("plan", "half written")
        writer.say("set", key="plan", value="second", timestamp=1)
        writer.until("key_updated")
        tab.run("window.confirm = () => true")
        tab.click("[data-key=plan] > .moves .quiet")
        tab.until("document.querySelector('[data-key=plan] .problem').innerText.includes('Not deleted')")
        assert writer.settle() == []


def test_what_somebody_is_writing_stays_when_its_key_is_deleted(server: Server, tmp_path: Path) -> None:
    with joined(server, "gone") as writer, browsing(tmp_path / "profile") as tab:
        writer.say("set", key="plan", value="first", timestamp=1)
        writer.until("key_updated")
        tab.enter(server.url)
        tab.open(f"{server.url}/admin/instances/gone")
        tab.until("shown.get('plan')?.base === 1")
        tab.type("plan", "half written")
        writer.say("delete", key="plan")
        writer.until("key_deleted")
        tab.until("document.querySelector('[data-key=plan] .problem').innerText.includes('dev-user deleted this')")
        tab.click("[data-key=plan] .save")
        assert writer.until("key_updated")[-1]["value"] == "half written"


def test_nothing_is_wider_than_a_phone(server: Server, tmp_path: Path) -> None:
    with joined(server, "narrow") as writer, browsing(tmp_path / "profile") as tab:
        writer.say("set", key="k" * 200, value="x" * 5_000, attributes={"contentTags": ["t" * 90]}, timestamp=1)
        writer.say("set", key="json", value={"deep": [{"list": list(range(50))}]}, timestamp=1)
        writer.settle()
        tab.call("Emulation.setDeviceMetricsOverride", **PHONE)
        tab.enter(server.url)
        for path, seen in (("", "main h1"), ("/instances/narrow", "[data-key=json]")):
            tab.open(f"{server.url}/admin{path}")
            tab.until(f"document.querySelector({json.dumps(seen)}) !== null")
            assert tab.run("document.documentElement.scrollWidth") <= PHONE["width"]


def test_the_seqs_of_an_instance_are_the_operators(server: Server) -> None:
    with joined(server, "numbered") as writer, server.client() as client:
        for key in ("a", "b", "a"):
            writer.say("set", key=key, value=time.monotonic_ns(), timestamp=1)
        writer.settle()
        assert client.get("/admin/instances/numbered/seqs").status_code == 401
        enter(client)
        assert client.get("/admin/instances/numbered/seqs").json() == {"seqs": {"a": 3, "b": 2}}
        assert client.get("/admin/instances/nowhere/seqs").status_code == 404


def test_the_cookie_is_not_the_token_and_belongs_to_this_page(server: Server) -> None:
    with server.client() as client:
        said = enter(client)
        assert (said.status_code, said.headers["location"]) == (303, "/admin")
        cookie = said.headers["set-cookie"]
        assert ADMIN_TOKEN not in cookie
        assert {"HttpOnly", "SameSite=strict", "Path=/admin"} <= set(cookie.split("; "))
        page = client.get("/admin")
    assert page.status_code == 200
    assert "No usage in these 30 days" in page.text
    assert "unsafe" not in page.headers["content-security-policy"]


def test_a_wrong_token_and_a_forged_or_ended_cookie_open_nothing(server: Server) -> None:
    with server.client() as client:
        assert enter(client, "wrong").status_code == 401
        assert not client.cookies
        until, _, signature = enter(client).cookies["admin"].partition(".")
        client.cookies.clear()
        for forged in (f"{until}.{'0' * 64}", f"{int(until) + 1}.{signature}", f"1.{signature}", until, ""):
            with server.client(Cookie=f"admin={forged}") as thief:
                assert thief.get("/admin").status_code == 401
                assert thief.post("/admin/ws-token", json={"instanceId": "watched"}).status_code == 401


def test_the_cookie_gives_tickets_to_its_own_origin_only(server: Server) -> None:
    asked = {"instanceId": "ticketed"}
    with joined(server, "ticketed"), server.client() as client:
        enter(client)
        for origin in ("https://elsewhere.example", "null", "http://[", ""):
            assert client.post("/admin/ws-token", json=asked, headers={"Origin": origin}).status_code == 403
        assert client.post("/admin/ws-token", json=asked).status_code == 403
        given = client.post("/admin/ws-token", json=asked, headers={"Origin": server.url})
        assert (given.status_code, given.json()["permission"]) == (200, "admin")
        elsewhere = client.post("/api/projects", json={"name": "x"}, headers={"Authorization": "Bearer ak_wrong"})
        assert elsewhere.status_code == 401


def test_what_others_wrote_is_text_on_the_page(server: Server) -> None:
    with joined(server, "hostile") as writer, server.client() as client:
        writer.say("set", key="<script>key", value="<script>value", timestamp=1)
        writer.until("key_updated")
        enter(client)
        page = client.get("/admin/instances/hostile").text
    assert "&lt;script&gt;key" in page
    assert "&lt;script&gt;value" in page
    assert "<script>" not in page


def test_an_instance_that_is_not_there_is_not_found(server: Server) -> None:
    with server.client() as client:
        enter(client)
        assert client.get("/admin/instances/nowhere").status_code == 404
        assert client.get("/admin/instances/nowhere/history").status_code == 404


def test_leaving_ends_the_cookie(server: Server) -> None:
    with server.client() as client:
        enter(client)
        assert client.post("/admin/leave", headers={"Origin": server.url}).status_code == 303
        assert client.get("/admin").status_code == 401


def test_the_plot_draws_each_day_in_proportion_and_today_at_the_right() -> None:
    now = 20_000 * DAY_MS + 5
    drawn = admin_plot.draw([Day(19_990 * DAY_MS, 500, 1, 0), Day(20_000 * DAY_MS, 1_000, 2, 1_500_000)], now)
    bars = re.findall(r'<rect x="(\d+)" y="\d+" width="\d+" height="(\d+)"', drawn)
    right = admin_plot.LEFT + (admin_plot.DAYS - 1) * admin_plot.STEP
    assert [int(height) for _, height in bars] == [admin_plot.HEIGHT // 2, admin_plot.HEIGHT]
    assert right <= int(bars[1][0]) < right + admin_plot.STEP
    assert "1,000 tokens, 2 events, $1.50" in drawn
    assert '<th scope="row">4 Oct</th><td>1,000</td><td>2</td><td>$1.50</td>' in drawn


@pytest.mark.parametrize(
    ("most", "lines"),
    [(1, ["0", "1"]), (7, ["0", "2", "4", "6", "8"]), (1_000, ["0", "250", "500", "750", "1k"]), (5_310_000, None)],
)
def test_the_lines_of_the_plot_stand_at_round_numbers(most: int, lines: list[str] | None) -> None:
    drawn = admin_plot.draw([Day(20_000 * DAY_MS, most, 1, 0)], 20_000 * DAY_MS)
    assert re.findall(r'text-anchor="end">([\d.kM]+)<', drawn) == (lines or ["0", "2M", "4M", "6M"])


def test_a_plot_of_nothing_says_so() -> None:
    assert "<svg" not in admin_plot.draw([], 20_000 * DAY_MS)
    assert "No usage" in admin_plot.draw([], 20_000 * DAY_MS)


@pytest.mark.parametrize(
    ("past_ms", "told"),
    [
        (-5_000, "just now"),
        (59_000, "just now"),
        (60_000, "1 min ago"),
        (3 * 3_600_000, "3 h ago"),
        (DAY_MS, "1 day ago"),
        (14 * DAY_MS, "14 days ago"),
        (15 * DAY_MS, "6 Nov, 12:00"),
        (365 * DAY_MS, "21 Nov 2025"),
    ],
)
def test_how_long_ago_it_was_is_told_until_a_date_says_more(past_ms: int, told: str) -> None:
    assert f">{told}</time>" in admin_figures.ago(NOON - past_ms, NOON)


def test_large_numbers_are_short() -> None:
    assert [admin_figures.bounded(number, 100_000) for number in (0, 99_999, 100_000)] == ["0", "99,999", "100,000+"]
    assert [admin_figures.short(number) for number in (0, 2.5, 999, 46_600, 83_900_000, 3e12)] == [
        "0",
        "2.5",
        "999",
        "46.6k",
        "83.9M",
        "3T",
    ]


def test_every_instance_is_on_one_of_the_pages(server: Server) -> None:
    with server.client() as client:
        project = client.post("/api/projects", json={"name": "many"}).json()["id"]
        path = f"/api/projects/{project}/instances"
        made = {client.post(path, json={"name": f"n{number}"}).json()["id"] for number in range(INSTANCES_PAGE + 1)}
        enter(client)
        seen, address = set(), "/admin"
        while address:
            page = client.get(address).text
            found = re.findall(r'href="/admin/instances/([^"]+)"', page)
            assert 0 < len(found) <= INSTANCES_PAGE
            seen |= set(found)
            following = re.search(r'href="(/admin\?after=[^#"]+)[^>]*>Next', page)
            address = following[1] if following else ""
    assert made <= seen


def test_history_goes_on_where_a_page_ends(server: Server) -> None:
    with joined(server, "long") as writer, server.client() as client:
        for number in range(60):
            writer.say("set", key="counter", value=number, timestamp=1)
        writer.settle()
        enter(client)
        newest = client.get("/admin/instances/long").text
        older = re.search(r'href="([^"#]+)[^"]*">Older', newest)
        assert older is not None
        rest = client.get(older[1]).text
    told = [int(seq) for page in (newest, rest) for seq in re.findall(r'data-head="Seq"><div>(\d+)', page)]
    assert told == list(range(60, 0, -1))


@pytest.mark.anyio
async def test_counts_go_so_far_and_no_further(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_queries, "COUNTED", 2)

    def add(tx: Transaction) -> None:
        for number in range(4):
            identity.insert_user(tx, f"usr_{number}", now=NOON)

    await db.write(add)
    assert (await admin_queries.get_counts(db)).users == 2


@pytest.mark.anyio
async def test_a_days_usage_is_of_all_users_together(db: Database) -> None:
    def add(tx: Transaction) -> None:
        for user, tokens in (("usr_1", 10), ("usr_2", 32)):
            identity.insert_user(tx, user, now=NOON)
            event = read_event(Wire(userId=user, totalTokens=tokens), NOON)
            ledger.record(tx, [event._replace(occurred_at_ms=NOON)], Poster(), NOON)

    await db.write(add)
    days = await admin_queries.list_days(db, NOON - NOON % DAY_MS)
    assert [(day.start_ms, day.tokens, day.events) for day in days] == [(NOON - NOON % DAY_MS, 42, 2)]
