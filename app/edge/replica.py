"""The replica seen from outside Litestream: which folders it has and what goes, in a folder of ours or in a bucket."""

import os
import shutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from urllib.parse import unquote, urlsplit

from app.edge import bucket
from app.errors import Unavailable

# Where folders can be listed without Litestream, which knows more kinds of replicas.
LISTED = ("file", "s3")
FOLDERS_AT_ONCE = 1_000


def list_folders(url: str) -> list[str]:
    """The names right below a replica's URL; none where there is nothing. Unavailable when it cannot be asked."""
    return sorted(chain.from_iterable(list_pages(url)))


def list_pages(url: str) -> Iterator[list[str]]:
    """The same, so many at once that nobody has to hold all of them."""
    if _scheme(url) == "s3":
        yield from bucket.list_prefixes(bucket.read_bucket(url, os.environ))
    else:
        folder = _folder(url)
        names = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
        yield from (names[first : first + FOLDERS_AT_ONCE] for first in range(0, len(names), FOLDERS_AT_ONCE))


def remove_folder(url: str) -> None:
    """Delete all that is below a replica's URL, whatever an earlier try has left of it. Unavailable."""
    if not urlsplit(url).path.strip("/"):
        raise ValueError("That would be all of a bucket, or of a disk")
    if _scheme(url) == "s3":
        bucket.remove_all(bucket.read_bucket(url, os.environ))
        return
    folder = _folder(url)
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise Unavailable(f"The replica keeps what it was told to delete: {error.strerror}") from error


def _folder(url: str) -> Path:
    return Path(unquote(urlsplit(url).path))


def _scheme(url: str) -> str:
    scheme = urlsplit(url).scheme
    if scheme not in LISTED:
        raise Unavailable(f"What is in a {scheme} replica cannot be listed")
    return scheme
