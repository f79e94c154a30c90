"""The wiring: what runs beside the requests says so when it fails."""

import asyncio

import pytest

from app.main import _tell_failure

pytestmark = pytest.mark.anyio


async def test_a_task_that_fails_is_told_at_once_and_one_that_is_ended_is_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def fail() -> None:
        raise LookupError("something nobody thought of")

    for work in (fail(), asyncio.sleep(10)):
        task = asyncio.create_task(work)
        task.add_done_callback(_tell_failure)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    told = capsys.readouterr().out
    assert "something nobody thought of" in told
    assert told.count("task_failed") == 1
