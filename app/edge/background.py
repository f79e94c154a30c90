"""Background: what runs beside the requests, until the application ends."""

import asyncio
from collections.abc import Coroutine, Iterable
from contextlib import AsyncExitStack
from typing import Any

import structlog

log = structlog.get_logger("background")


def run(stack: AsyncExitStack, tasks: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Start them; they are cancelled, and have ended, when the stack comes to where they are on it."""
    for task in tasks:
        running = asyncio.create_task(task)
        running.add_done_callback(_tell_failure)
        stack.push_async_callback(_end, running)


def _tell_failure(task: "asyncio.Task[None]") -> None:
    """Nobody awaits it before the end, and what it did is done no more."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("task_failed", task=str(task.get_coro()), exc_info=error)


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait([task])
