"""npm's ws as the client: echoes, limits, fragments, pings, closes and refusals."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from app.edge.sockets import MESSAGE_BYTES
from tests.edge.test_websocket_crowd import serving

CLIENT_SECONDS = 60.0


@pytest.fixture(scope="module")
def seen(node_modules: Path) -> dict[str, Any]:
    with serving() as served:
        address = f"ws://127.0.0.1:{served.port}"
        done = subprocess.run(
            ["node", "ws_client.mjs"],
            cwd=node_modules.parent,
            input=json.dumps({"url": f"{address}/echo", "refused": f"{address}/refused"}),
            capture_output=True,
            text=True,
            timeout=CLIENT_SECONDS,
        )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_texts_and_bytes_come_back_also_those_as_large_as_the_limit(seen: dict[str, Any]) -> None:
    assert (seen["echo"], seen["empty"], seen["binary"], seen["large"]) == ("grüße", "", True, True)
    assert seen["atLimit"] == MESSAGE_BYTES


def test_a_message_above_the_limit_is_1009(seen: dict[str, Any]) -> None:
    code, reason = seen["oversized"]
    assert code == 1009
    assert reason == f"message of at least {MESSAGE_BYTES + 1} bytes (max: {MESSAGE_BYTES})"


def test_fragments_are_one_message_and_a_ping_between_them_is_answered(seen: dict[str, Any]) -> None:
    assert seen["fragments"] == ["in three parts", "between"]


def test_a_long_text_in_slices_is_one_message_before_the_next_and_a_ping_may_come_between(seen: dict[str, Any]) -> None:
    assert seen["slices"] == [True, "after", True]


def test_thousands_of_messages_keep_their_order(seen: dict[str, Any]) -> None:
    assert seen["burst"] is True


def test_no_compression_is_agreed(seen: dict[str, Any]) -> None:
    assert seen["extensions"] == ""


def test_close_codes_go_both_ways(seen: dict[str, Any]) -> None:
    assert seen["closes"] == [[1000, ""], [4001, ""], [1005, ""]]
    assert seen["closed"] == [[1000, ""], [4408, "Too slow"], [1011, ""]]


def test_a_refusal_is_read_with_its_status_and_code(seen: dict[str, Any]) -> None:
    assert seen["refusal"] == [401, "unauthenticated"]
