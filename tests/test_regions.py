"""Regions: what the environment says of this machine and the others, and what is wrong with it."""

import pytest

from app.regions import Peer, Regions
from app.settings import SettingsError, read_settings

SECRET = "p" * 32
REPLICATED = {
    "REPLICATION": "litefs",
    "PRIMARY_REGION": "fra",
    "FLY_REGION": "ams",
    "FLY_MACHINE_ID": "m2",
    "FLY_APP_NAME": "ours",
    "PEER_SECRET": SECRET,
    "JWT_SECRET": "j" * 32,
    "DATABASE_PATH": "/litefs/core.db",
}
LISTED = "fra/m1=http://127.0.0.1:9001, ams/m2=http://127.0.0.1:9002/"


def regions(environ: dict[str, str]) -> Regions:
    return read_settings({"PEER_SECRET": SECRET, "JWT_SECRET": "j" * 32} | environ).regions


def problems(environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        read_settings(environ)
    return refused.value.problems


def test_a_machine_alone_is_its_own_primary() -> None:
    alone = regions({})
    assert (alone.replicated, alone.in_primary_region, alone.replay) == (False, True, "off")


def test_peers_are_listed_with_region_machine_and_address() -> None:
    listed = regions(REPLICATED | {"PEERS": LISTED})
    assert listed.peers == (Peer("fra", "m1", "http://127.0.0.1:9001"), Peer("ams", "m2", "http://127.0.0.1:9002"))


@pytest.mark.parametrize("text", ["fra=http://127.0.0.1:1", "fra/m1", "fra/m1=127.0.0.1:1", "fra/m1=http://h/path"])
def test_a_peer_that_cannot_be_read_is_named(text: str) -> None:
    assert any(line.startswith("PEERS:") and text in line for line in problems({"PEERS": text}))


def test_a_machine_is_listed_once() -> None:
    twice = "fra/m1=http://a:1,ams/m1=http://b:1"
    assert any("once" in line for line in problems({"PEERS": twice}))


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, "off"),
        ({"FLY_MACHINE_ID": "m1"}, "fly"),
        ({"FLY_MACHINE_ID": "m1", "PEERS": "local/m1=http://a:1"}, "forward"),
        ({"FLY_MACHINE_ID": "m1", "REPLAY": "off"}, "off"),
    ],
)
def test_how_requests_move_follows_from_where_it_runs(environ: dict[str, str], wanted: str) -> None:
    assert regions(environ).replay == wanted


def test_a_replica_is_one_outside_the_primary_region() -> None:
    here = regions(REPLICATED)
    assert here.replicated
    assert not here.in_primary_region
    assert regions(REPLICATED | {"FLY_REGION": "fra"}).in_primary_region


@pytest.mark.parametrize("name", ["PRIMARY_REGION", "FLY_MACHINE_ID", "PEER_SECRET"])
def test_replication_needs_its_names(name: str) -> None:
    lacking = {key: value for key, value in REPLICATED.items() if key != name}
    assert any(line.startswith(name) for line in problems(lacking))


@pytest.mark.parametrize(
    ("name", "value"), [("REPLICATION", "raft"), ("REPLAY", "maybe"), ("DURABLE_ACK", "yes"), ("PEER_SECRET", "short")]
)
def test_a_word_that_is_not_one_of_them_is_named(name: str, value: str) -> None:
    assert any(line.startswith(name) for line in problems({name: value}))


def test_a_peer_secret_is_in_no_repr() -> None:
    settings = read_settings(REPLICATED)
    assert settings.regions.peer_secrets == (SECRET,)
    assert SECRET not in repr(settings)


def test_a_durable_answer_needs_somewhere_to_be_durable() -> None:
    assert "DURABLE_ACK needs LITESTREAM_REPLICA_URL" in problems({"DURABLE_ACK": "core"})
    assert read_settings({"DURABLE_ACK": "all", "LITESTREAM_REPLICA_URL": "file:///backup"}).durable_ack == "all"


def test_machines_that_speak_with_each_other_share_secrets_and_have_names() -> None:
    assert problems({"PEERS": "local/m1=http://a:1"}) == [
        "JWT_SECRET is required with REPLICATION or PEERS: each machine reads what others have signed",
        "FLY_MACHINE_ID is required with PEERS: each machine needs a name that stays",
        "PEER_SECRET is required with PEERS",
    ]


def test_what_makes_a_cluster_is_complete() -> None:
    assert regions(REPLICATED).clustered
    assert regions(REPLICATED | {"FLY_APP_NAME": "", "PEERS": LISTED}).replay == "forward"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"PEERS": "fra/m1=http://a:1"}, "PEERS: this machine, ams/m2, has to be among them"),
        ({"PEERS": "fra/m1=http://a:1,nrt/m2=http://b:1"}, "PEERS: this machine, ams/m2, has to be among them"),
        (
            {"PEERS": LISTED + ",fra/m3=http://c:1"},
            "PEERS: exactly one machine is in PRIMARY_REGION=fra, got 2 (m1, m3)",
        ),
        ({"PEERS": "ams/m2=http://b:1"}, "PEERS: exactly one machine is in PRIMARY_REGION=fra, got 0"),
        (
            {"PEERS": LISTED, "REPLICATION": "none", "PRIMARY_REGION": ""},
            "PEERS with several machines needs REPLICATION=litefs: each would write a core of its own",
        ),
        (
            {"REPLICATION": "none"},
            "PRIMARY_REGION=fra is not FLY_REGION=ams: without REPLICATION=litefs each would write a core of its own",
        ),
        ({"FLY_APP_NAME": ""}, "A replica has to find the primary: by FLY_APP_NAME on Fly, by PEERS elsewhere"),
        (
            {"REPLAY": "off"},
            "REPLAY=off with REPLICATION: nothing would reach the machine that can answer it; fly or forward",
        ),
        (
            {"REPLICATION": "none", "PRIMARY_REGION": "", "LITEFS_HTTP": "http://127.0.0.1:20202"},
            "LITEFS_HTTP needs REPLICATION=litefs: without it the app must not write to LiteFS's mount",
        ),
        (
            {"LITESTREAM_REPLICA_URL": "file:///data/backup"},
            "LITESTREAM_REPLICA_URL: a folder is on one machine alone, and is lost with it; s3://… is not",
        ),
        (
            {"DATA_DIR": "/litefs/house", "LEDGER_PATH": "/data/ledger.db"},
            "DATA_DIR, INSTANCES_DIR: expected on the volume, not in /litefs, which DATABASE_PATH is on",
        ),
        (
            {"LEDGER_PATH": "/litefs/ledger.db"},
            "LEDGER_PATH: expected on the volume, not in /litefs, which DATABASE_PATH is on",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(changed: dict[str, str], said: str) -> None:
    assert problems(REPLICATED | changed) == [said]


def test_only_fly_replays() -> None:
    assert problems({"REPLAY": "fly"}) == [
        "REPLAY=fly needs FLY_MACHINE_ID, which Fly sets: elsewhere it is REPLAY=forward"
    ]


def test_the_peer_port_is_not_the_public_one() -> None:
    assert problems(REPLICATED | {"PORT": "9000", "PEER_PORT": "9000"}) == [
        "PEER_PORT: expected another port than PORT"
    ]
    assert regions({"PORT": "8788"}).peer_port == 8788
