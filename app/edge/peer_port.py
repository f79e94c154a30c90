"""The peer port: a second listener into the same app, where only machines that know PEER_SECRET are heard.

A question goes to whoever answers its path; a request that another machine forwards goes the way of all requests,
as its client's.
"""

import ipaddress

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.edge.http import LANDED, MOVED, json_response, method_of, read_body, target_of
from app.edge.job import waited_before
from app.edge.peers import ANSWER_BYTES, PREFIX, SIGNATURE, STRANGER, Peers
from app.errors import AppError, NotFound, Unauthenticated, body

PASSPORT = "litehouse-passport"


class PeerPort:
    """Wraps the front. `port` is where peers are heard; everything else passes."""

    def __init__(self, app: ASGIApp, peers: Peers, port: int) -> None:
        self._app = app
        self._peers = peers
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["server"][1] != self._port:
            await self._app(scope, receive, send)
            return
        try:
            if scope["type"] == "http" and scope["path"].startswith(PREFIX):
                await (await self._answer(Request(scope, receive)))(scope, receive, send)
                return
            self._admit(scope)
        except ClientDisconnect:
            return
        except Unauthenticated as error:
            # Whoever forwards must not take this for the answer to its client.
            await _refusal(error, STRANGER)(scope, receive, send)
            return
        except AppError as error:
            await _refusal(error, {})(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        """Take the word of the machine that forwards. Unauthenticated without a good passport."""
        passport = self._peers.seal.read_passport(_take_header(scope, PASSPORT), method_of(scope), target_of(scope))
        try:
            scope["client"] = (str(ipaddress.ip_address(passport.client)), 0)
        except ValueError:
            scope["client"] = None
        scope["request_id"] = passport.request_id
        waited_before.set(passport.waited_seconds)
        scope[MOVED] = passport.machine
        scope[LANDED] = passport.region

    async def _answer(self, request: Request) -> Response:
        seal, text = self._peers.seal, _take_header(request.scope, SIGNATURE)
        signature = seal.read_signature(text, request.method, target_of(request.scope))
        question = await read_body(request, ANSWER_BYTES)
        seal.use_up(signature, question)
        answer = self._peers.answers.get(request.scope["path"])
        if answer is None:
            raise NotFound("No machine answers that", certain=True)
        return Response(await answer(question, signature.machine), media_type="application/octet-stream")


def _take_header(scope: Scope, wanted: str) -> str:
    name = wanted.encode()
    held = [value for key, value in scope["headers"] if key == name]
    if len(held) != 1:
        raise Unauthenticated("Only the other machines are heard here", certain=True)
    scope["headers"] = [field for field in scope["headers"] if field[0] != name]
    text: str = held[0].decode("latin-1")
    return text


def _refusal(error: AppError, headers: dict[str, str]) -> Response:
    return json_response(body(error, ""), error.status, error.headers | headers)
