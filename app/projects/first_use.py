"""First use: in development an instance of an unknown id is made where it is opened. The primary makes its row."""

from app.edge.clock import now_ms
from app.edge.database import Database
from app.edge.follower import Follower, writes
from app.edge.peers import Answer
from app.errors import Unavailable
from app.identity.users import DEV_USER
from app.projects import access_queries, instances

ENSURE = "/peer/instance"


class FirstUse:
    """`follower` is there where the primary has to be asked; `region` is this machine's."""

    def __init__(self, db: Database, region: str, follower: Follower | None = None) -> None:
        self._db = db
        self._region = region
        self._follower = follower

    async def ensure(self, instance_id: str) -> None:
        """Have an instance of dev-user's, of this region where there was none. NotFound for one that was deleted.

        Unavailable where the primary is away, or somebody was faster in another region.
        """
        if await self._db.read_one(access_queries.find_instance, instance_id) is not None:
            return
        if self._follower is None:
            await self._make(instance_id, self._region)
            return
        await self._follower.have_written(ENSURE, instance_id, self._region)
        made = await self._db.read_one(access_queries.find_instance, instance_id)
        if made is not None and made.region != self._region:
            raise Unavailable("Somebody has made it elsewhere", certain=False)

    def answers(self) -> dict[str, Answer]:
        """What the primary says to the others."""
        return {ENSURE: writes(self._make, tuple[str, str])}

    async def _make(self, instance_id: str, region: str) -> None:
        await self._db.write(instances.ensure, instance_id, DEV_USER, region, now_ms())
