"""A process that writes things as fast as it can and says which of them were acknowledged.

`python -m tests.edge.acknowledging PATH PREFIX` runs until it is killed.
"""

import asyncio
import itertools
import os
import sys
from pathlib import Path

import app  # noqa: F401 - before anything that could load another SQLite
from tests.edge.conftest import add, opened

WRITERS = 20


async def main(path: Path, prefix: str) -> None:
    numbers = itertools.count()
    async with opened(path) as db:

        async def write() -> None:
            while True:
                name = await db.write(add, f"{prefix}.{next(numbers)}")
                os.write(1, f"{name}\n".encode())

        await asyncio.gather(*(write() for _ in range(WRITERS)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
