"""Metrics: what this process has counted, for operators and for a collector on the private network."""

import hmac
import ipaddress

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from app.edge.http import settings_of
from app.edge.metrics import Metrics
from app.edge.openapi import ADMIN, BEARER, operation
from app.errors import Unauthenticated
from app.identity.authenticator import authenticator_of

PRIVATE = tuple(
    ipaddress.ip_network(network)
    for network in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
)
# What a proxy adds: with one of these a private address is the proxy's, not the caller's.
PROXIED = ("fly-client-ip", "x-forwarded-for", "forwarded")


@operation(answer=str, answer_media="text/plain", errors=(401,), credentials=(ADMIN, BEARER))
async def show(request: Request) -> Response:
    """Latencies by route, the writer's queue and groups, ingestion, refusals, and the process itself.

    Prometheus text. The Bearer is METRICS_TOKEN; a caller on the private network needs no credential.
    """
    _admit(request)
    metrics: Metrics = request.scope["state"]["metrics"]
    return Response(metrics.text(), 200, {"Cache-Control": "no-store", "Content-Type": CONTENT_TYPE_LATEST})


def _admit(request: Request) -> None:
    if authenticator_of(request).is_operator(request) or _bears_token(request) or _is_private_peer(request):
        return
    raise Unauthenticated("Unauthorized", certain=True)


def _bears_token(request: Request) -> bool:
    token = settings_of(request).metrics_token
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    return bool(token) and kind.lower() == "bearer" and hmac.compare_digest(given.encode(), (token or "").encode())


def _is_private_peer(request: Request) -> bool:
    if request.client is None or any(name in request.headers for name in PROXIED):
        return False
    return is_private(request.client.host)


def is_private(address: str) -> bool:
    """Whether an address is loopback's or a private network's; an IPv4 address inside an IPv6 one is judged itself."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return any(ip in network for network in PRIVATE)
