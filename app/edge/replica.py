"""The replica seen from outside Litestream: which folders it has, in a folder of this machine or in a bucket."""

import hashlib
import hmac
import http.client
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit
from xml.etree import ElementTree

from app.errors import Unavailable

LIST_SECONDS = 15.0
# Where folders can be listed without Litestream, which knows more kinds of replicas.
LISTED = ("file", "s3")
NOTHING_HASH = hashlib.sha256(b"").hexdigest()
XML = "{http://s3.amazonaws.com/doc/2006-03-01/}"


class Bucket(NamedTuple):
    """Where a bucket is asked, by path: `endpoint/name`."""

    endpoint: str
    name: str
    prefix: str
    region: str


def list_folders(url: str) -> list[str]:
    """The names right below a replica's URL; none where there is nothing. Unavailable when it cannot be asked."""
    scheme = urlsplit(url).scheme
    if scheme == "file":
        folder = Path(unquote(urlsplit(url).path))
        return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if scheme == "s3":
        return sorted(_list_prefixes(read_bucket(url, os.environ), os.environ))
    raise Unavailable(f"What is in a {scheme} replica cannot be listed")


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


def _list_prefixes(bucket: Bucket, environ: Mapping[str, str]) -> Iterator[str]:
    prefix = f"{bucket.prefix}/" if bucket.prefix else ""
    asked = {"delimiter": "/", "list-type": "2", "prefix": prefix}
    while True:
        answer = ElementTree.fromstring(_get(bucket, asked, environ))
        for found in answer.iter(f"{XML}CommonPrefixes"):
            yield (found.findtext(f"{XML}Prefix") or "").removeprefix(prefix).rstrip("/")
        token = answer.findtext(f"{XML}NextContinuationToken")
        if not token:
            return
        asked["continuation-token"] = token


def _get(bucket: Bucket, query: dict[str, str], environ: Mapping[str, str]) -> bytes:
    parts = urlsplit(bucket.endpoint)
    path = f"{parts.path}/{quote(bucket.name)}"
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    asked = urlencode(sorted(query.items()), quote_via=quote, safe="-_.~")
    headers = _sign(bucket, parts.netloc, path, asked, environ, datetime.now(UTC))
    connection = kind(parts.netloc, timeout=LIST_SECONDS)
    try:
        connection.request("GET", f"{path}?{asked}", headers=headers)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"The bucket {bucket.name} does not answer: {error}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise Unavailable(f"The bucket {bucket.name} cannot be listed: {response.status} {response.reason}")
    return body


def _sign(
    bucket: Bucket, host: str, path: str, query: str, environ: Mapping[str, str], now: datetime
) -> dict[str, str]:
    """The headers of a GET, signed as https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html says."""
    key = environ.get("AWS_ACCESS_KEY_ID") or environ.get("LITESTREAM_ACCESS_KEY_ID", "")
    secret = environ.get("AWS_SECRET_ACCESS_KEY") or environ.get("LITESTREAM_SECRET_ACCESS_KEY", "")
    at, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    headers = {"host": host, "x-amz-content-sha256": NOTHING_HASH, "x-amz-date": at}
    if token := environ.get("AWS_SESSION_TOKEN"):
        headers["x-amz-security-token"] = token
    signed = ";".join(headers)
    listed = "".join(f"{name}:{value}\n" for name, value in headers.items())
    canonical = "\n".join(("GET", path, query, listed, signed, NOTHING_HASH))
    scope = f"{day}/{bucket.region}/s3/aws4_request"
    text = "\n".join(("AWS4-HMAC-SHA256", at, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    signing = f"AWS4{secret}".encode()
    for part in (day, bucket.region, "s3", "aws4_request"):
        signing = hmac.digest(signing, part.encode(), "sha256")
    signature = hmac.digest(signing, text.encode(), "sha256").hex()
    authorization = f"AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={signed}, Signature={signature}"
    return headers | {"authorization": authorization}
