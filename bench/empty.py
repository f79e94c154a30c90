"""The empty server: Starlette with nothing behind it, on the paths that are measured."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.messages import EVENTS, PROFILE, QUOTA


async def read(request: Request) -> Response:
    return Response()


async def write(request: Request) -> Response:
    await request.body()
    return Response()


app = Starlette(routes=[Route(QUOTA, read), Route(EVENTS, write, methods=["POST"]), Route(PROFILE, read)])
