"""Planned changes: found from all that is committed, made before anything else changes, and answered once."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from app.edge import idempotency
from app.edge.clock import now_ms
from app.edge.http import JsonResponse, encode_json
from app.edge.idempotency import Answer, Running
from app.instances import queries
from app.instances.draft import Caller, Change, Draft
from app.instances.entry import Entry
from app.instances.hub import Hub
from app.instances.mailbox import Ask, Make, Result
from app.instances.rest import Entered, hubs_of, in_http
from app.instances.store import OPERATION_MS

PLAN_ERRORS = (400, 401, 403, 404, 408, 409, 410, 413, 422, 429, 503)


class Planned(NamedTuple):
    """Changes, and the answer to what became of them."""

    changes: Sequence[Change]
    answer: Callable[[Result], object]


# Finds changes from all that is committed; nothing is changed meanwhile.
Plan = Callable[[Hub, Mapping[str, Entry]], Awaitable[Planned]]


def hash_of(request: Request, body: bytes) -> bytes:
    """What tells a request from another one under the same Idempotency-Key."""
    return idempotency.hash_of(request.scope["query_string"], b"\0", body)


async def make_planned(request: Request, entered: Entered, asked: bytes, plan: Plan) -> Response:
    """Make what `plan` finds, all or nothing, and answer it.

    The first answer to an Idempotency-Key is stored with its changes and given again; Unprocessable where `asked`
    is another request's hash, Conflict while the first is running.
    """
    caller, name = entered.caller, idempotency.find_name(request, entered.principal.id)
    running: Running = request.scope["state"]["running"]
    async with nullcontext() if name is None else running.only(name), hubs_of(request).use(entered.instance.id) as hub:

        async def work(entries: Mapping[str, Entry], make: Make) -> Answer:
            stored = await _find_answer(hub, caller, name)
            if stored is not None:
                return idempotency.recall(stored, asked)
            planned = await plan(hub, entries)
            around = partial(_answered, planned.answer, asked)
            answer: Answer = (await make(Ask(planned.changes, caller, op_id=name, around=around))).left
            return answer

        with in_http():
            answer = await hub.alone(work)
    return JsonResponse(answer.body, answer.status)


async def _find_answer(hub: Hub, caller: Caller, name: str | None) -> bytes | None:
    if name is None:
        return None
    return await hub.read_file(queries.find_answer, caller.principal, name, now_ms() - OPERATION_MS)


def _answered(answer_of: Callable[[Result], object], asked: bytes, draft: Draft, apply: Callable[[], Result]) -> Result:
    result = apply()
    answer = Answer(200, encode_json(answer_of(result)), asked)
    return result._replace(left=answer, kept=idempotency.keep(answer))
