"""A primary whose core is gone while the backup holds one: it does not begin anew unless somebody says so.

What would be lost: the way back, because an empty core would be served, written to, and shipped over the old one.
"""

import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from app.edge import beginning, migrate, replication
from app.errors import Conflict, Unavailable
from app.settings import Settings
from tests.cluster.backing import Backed
from tests.cluster.s3 import S3, serving_s3
from tests.conftest import Server
from tests.edge.test_replication import Speaker, speaking

REFUSED = "the backup at {} holds one: `litehouse backup restore` brings it back"


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[S3]:
    with serving_s3(tmp_path / "store") as serving:
        yield serving


@pytest.fixture(params=["folder", "s3"])
def backed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backed]:
    """A server that acknowledges nothing before its replica has it."""
    if request.param == "folder":
        made = Backed(tmp_path, f"file://{tmp_path}/replica", "core")
    else:
        s3: S3 = request.getfixturevalue("s3")
        made = Backed(tmp_path, s3.url("prod"), "core", **s3.environ)
    yield made
    made.close()


def url_of(backed: Backed) -> str:
    return backed.server.environ["LITESTREAM_REPLICA_URL"].partition("?")[0]


def write(backed: Backed) -> None:
    with backed.server.client() as client:
        assert backed.post_event(client).status_code == 200


def test_a_server_does_not_begin_anew_over_what_can_be_restored(backed: Backed) -> None:
    backed.start()
    assert "restore" not in backed.server.log(), "the first deploy finds nothing, and says nothing of it"
    write(backed)
    backed.kill()
    backed.lose_disk()
    with pytest.raises(RuntimeError, match=REFUSED.format(url_of(backed))):
        backed.server.start()
    backed.restore()
    assert backed.events() == backed.acknowledged


async def refusal(settings: Settings) -> str:
    with pytest.raises((Conflict, Unavailable)) as refused:
        await replication.prepare(replication.of(settings), settings)
    return refused.value.message


@pytest.mark.anyio
async def test_nothing_is_begun_while_a_bucket_does_not_say_what_it_holds(
    tmp_path: Path, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be a new volume: what is begun there would be shipped as soon as the bucket is back."""
    monkeypatch.setattr(beginning, "REACH_SECONDS", 0.2)
    for name, value in s3.environ.items():
        monkeypatch.setenv(name, value)
    settings = Settings(database_path=tmp_path / "core.db", backup_url=s3.url("prod"))
    s3.stop()
    said = await refusal(settings)
    assert "does not say whether it holds one" in said
    assert s3.endpoint not in said
    assert not settings.database_path.exists()
    s3.start()
    await replication.prepare(replication.of(settings), settings)
    s3.stop()
    # There is a core now: nobody is asked any more.
    await replication.prepare(replication.of(settings), settings)


@pytest.mark.anyio
async def test_a_refused_key_is_not_an_empty_bucket(tmp_path: Path, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beginning, "REACH_SECONDS", 0.2)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "else")
    assert "403" in await refusal(Settings(database_path=tmp_path / "core.db", backup_url=s3.url("prod")))


@pytest.mark.anyio
@pytest.mark.parametrize("page", [b"<p>Sign in", b"<html/>"])
async def test_a_page_of_whoever_answers_instead_is_not_an_empty_bucket(
    page: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    monkeypatch.setattr(beginning, "REACH_SECONDS", 0.2)
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"s3://backup/prod?endpoint=http://127.0.0.1:{server.server_port}"
        try:
            said = await refusal(Settings(database_path=tmp_path / "core.db", backup_url=url))
        finally:
            server.shutdown()
    assert "does not say whether it holds one" in said


@pytest.fixture(scope="module")
def replica_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A replica that holds a core."""
    folder = tmp_path_factory.mktemp("earlier")
    backed = Backed(folder, f"file://{folder}/replica", "core")
    backed.start()
    write(backed)
    backed.close()
    return f"file://{folder}/replica"


def test_only_who_says_so_gives_up_what_the_backup_holds(tmp_path: Path, replica_url: str) -> None:
    server = Server(tmp_path, LITESTREAM_REPLICA_URL=replica_url)
    for command in ("migrate", "seed"):
        told = server.command(command)
        assert (told.returncode, REFUSED.format(replica_url) in told.stderr) == (1, True), told
    assert not (tmp_path / "core.db").exists()
    assert server.command("migrate", "--anew").returncode == 0
    assert server.command("seed").returncode == 0


@pytest.mark.anyio
async def test_a_start_that_was_interrupted_has_left_no_core(tmp_path: Path, replica_url: str) -> None:
    """A file without a schema is what a machine that stops in the middle of making one leaves."""
    settings = Settings(database_path=tmp_path / "core.db", backup_url=replica_url)
    settings.database_path.touch()
    assert REFUSED.format(replica_url) in await refusal(settings)
    migrate.migrate(settings.database_path, "core")
    await replication.prepare(replication.of(settings), settings)


@pytest.mark.anyio
async def test_a_replica_gets_its_core_from_the_primary(
    tmp_path: Path, replica_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replication, "ARRIVAL_SECONDS", 0.2)
    async with speaking(Speaker(), tmp_path / "mount") as spoken:
        settings = replace(spoken, backup_url=replica_url)
        assert "No database has come" in await refusal(settings)
    async with speaking(Speaker(is_primary=True), tmp_path / "mount") as spoken:
        settings = replace(spoken, backup_url=replica_url, regions=replace(spoken.regions, region="fra"))
        assert REFUSED.format(replica_url) in await refusal(settings)
