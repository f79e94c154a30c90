"""Background: what runs beside the requests says so when it fails, and ends with the application."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from app.edge import background

pytestmark = pytest.mark.anyio


async def test_a_task_that_fails_is_told_at_once_and_one_that_is_ended_is_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ended: list[str] = []

    async def fail() -> None:
        raise LookupError("something nobody thought of")

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("wait")

    async with AsyncExitStack() as stack:
        background.run(stack, [fail(), wait()])
        for _ in range(3):
            await asyncio.sleep(0)
        told = capsys.readouterr().out
        assert not ended
    assert ended == ["wait"]
    assert "something nobody thought of" in told
    assert (told + capsys.readouterr().out).count("task_failed") == 1
