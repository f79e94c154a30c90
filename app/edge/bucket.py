"""Buckets: what is asked of S3 beside Litestream, which has no words for it: to list names, and to delete a folder.

Requests are signed as https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html says.
"""

import base64
import hashlib
import hmac
import http.client
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import parse_qs, quote, urlencode, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from app.errors import Unavailable

ANSWER_SECONDS = 15.0
# As many as one request may name, in a list as in a deletion.
KEYS_AT_ONCE = 1_000
ANSWERS = ("ListBucketResult", "DeleteResult")


class Bucket(NamedTuple):
    """Where a bucket is asked, by path: `endpoint/name`."""

    endpoint: str
    name: str
    prefix: str
    region: str

    @property
    def below(self) -> str:
        """What every key below the prefix begins with."""
        return f"{self.prefix}/" if self.prefix else ""


def read_bucket(url: str, environ: Mapping[str, str]) -> Bucket:
    """The bucket that Litestream would take from the same words."""
    parts = urlsplit(url)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    region = query.get("region") or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    endpoint = query.get("endpoint") or _named_endpoint(environ) or f"https://s3.{region}.amazonaws.com"
    if "://" not in endpoint:
        endpoint = f"https://{endpoint}"
    return Bucket(endpoint.rstrip("/"), parts.netloc, parts.path.strip("/"), region)


def _named_endpoint(environ: Mapping[str, str]) -> str | None:
    """As https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html says, which Litestream follows."""
    return environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")


def list_prefixes(bucket: Bucket) -> Iterator[list[str]]:
    """The names right below the prefix, page by page. Unavailable."""
    asked = {"delimiter": "/", "list-type": "2", "max-keys": str(KEYS_AT_ONCE), "prefix": bucket.below}
    while True:
        answer = _ask(bucket, "GET", asked)
        found = (each.text or "" for each in answer.iterfind("{*}CommonPrefixes/{*}Prefix"))
        yield [prefix.removeprefix(bucket.below).rstrip("/") for prefix in found]
        token = answer.findtext("{*}NextContinuationToken")
        if not token:
            return
        asked["continuation-token"] = token


def remove_all(bucket: Bucket) -> None:
    """Delete everything below the prefix. Unavailable; what is left then can be deleted later."""
    last: list[str] = []
    while keys := _list_keys(bucket):
        if keys == last:
            raise Unavailable(f"The bucket {bucket.name} keeps what it was told to delete")
        _delete(bucket, keys)
        last = keys


def _list_keys(bucket: Bucket) -> list[str]:
    """The first keys below the prefix."""
    answer = _ask(bucket, "GET", {"list-type": "2", "max-keys": str(KEYS_AT_ONCE), "prefix": bucket.below})
    return [each.text or "" for each in answer.iterfind("{*}Contents/{*}Key")]


def _delete(bucket: Bucket, keys: Sequence[str]) -> None:
    """In the way in which Litestream prunes, so a bucket that can hold its replica can do it."""
    named = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in keys)
    answer = _ask(bucket, "POST", {"delete": ""}, f"<Delete><Quiet>true</Quiet>{named}</Delete>".encode())
    refused = answer.find("{*}Error")
    if refused is not None:
        raise Unavailable(f"The bucket {bucket.name} does not delete: {refused.findtext('{*}Code')}")


def _ask(bucket: Bucket, method: str, query: dict[str, str], body: bytes = b"") -> ElementTree.Element:
    parts = urlsplit(bucket.endpoint)
    path = f"{parts.path}/{quote(bucket.name)}"
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    asked = urlencode(sorted(query.items()), quote_via=quote, safe="-_.~")
    headers = {"host": parts.netloc}
    if body:
        headers["content-md5"] = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
    headers = _sign(bucket, method, path, asked, headers, body, datetime.now(UTC))
    connection = kind(parts.netloc, timeout=ANSWER_SECONDS)
    try:
        connection.request(method, f"{path}?{asked}", body=body or None, headers=headers)
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"The bucket {bucket.name} does not answer: {error}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise Unavailable(f"The bucket {bucket.name} refuses: {response.status} {response.reason}")
    return _read(bucket, answer)


def _read(bucket: Bucket, answer: bytes) -> ElementTree.Element:
    """Whoever says something else, as a proxy's page does, says nothing of what a bucket holds."""
    with suppress(ElementTree.ParseError):
        said = ElementTree.fromstring(answer)
        if said.tag.rpartition("}")[2] in ANSWERS:
            return said
    raise Unavailable(f"What answers for the bucket {bucket.name} is none")


def _sign(
    bucket: Bucket, method: str, path: str, query: str, headers: dict[str, str], body: bytes, now: datetime
) -> dict[str, str]:
    """The headers of a request, all of them signed."""
    environ = os.environ
    key = environ.get("AWS_ACCESS_KEY_ID") or environ.get("LITESTREAM_ACCESS_KEY_ID", "")
    secret = environ.get("AWS_SECRET_ACCESS_KEY") or environ.get("LITESTREAM_SECRET_ACCESS_KEY", "")
    at, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    content = hashlib.sha256(body).hexdigest()
    headers = headers | {"x-amz-content-sha256": content, "x-amz-date": at}
    if token := environ.get("AWS_SESSION_TOKEN"):
        headers["x-amz-security-token"] = token
    signed = ";".join(sorted(headers))
    listed = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    canonical = "\n".join((method, path, query, listed, signed, content))
    scope = f"{day}/{bucket.region}/s3/aws4_request"
    text = "\n".join(("AWS4-HMAC-SHA256", at, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    signing = f"AWS4{secret}".encode()
    for part in (day, bucket.region, "s3", "aws4_request"):
        signing = hmac.digest(signing, part.encode(), "sha256")
    signature = hmac.digest(signing, text.encode(), "sha256").hex()
    authorization = f"AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={signed}, Signature={signature}"
    return headers | {"authorization": authorization}
