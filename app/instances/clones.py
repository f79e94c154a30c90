"""Clones: an instance is copied where the new one will live, from wherever the other one lives."""

from app.edge import desk
from app.edge.keeper import Keeper
from app.edge.peers import Peers
from app.errors import NotFound
from app.instances.hubs import Hubs
from app.instances.parcels import Parcels
from app.projects.access import NO_INSTANCE

CLONE, COPY = "/peer/clone", "/peer/copy"
CLONE_SECONDS = 60.0


class Clones:
    """The copier of a machine that is one of several."""

    def __init__(self, hubs: Hubs, keeper: Keeper, peers: Peers, parcels: Parcels) -> None:
        self._hubs = hubs
        self._keeper = keeper
        self._peers = peers
        self._parcels = parcels
        peers.answers[CLONE] = desk.answer_of(self._make, tuple[str, str])
        peers.answers[COPY] = self._give

    async def clone(self, source_id: str, new_id: str) -> None:
        """Have the home of `new_id` copy what is committed of `source_id`. NotFound, Unavailable."""
        home = await self._keeper.home_of(new_id)
        if home is None:
            raise NotFound(NO_INSTANCE)
        if await self._keeper.may_open(new_id):
            await self._make(source_id, new_id)
        else:
            await desk.ask(self._peers, home, CLONE, type(None), source_id, new_id, seconds=CLONE_SECONDS)

    async def _make(self, source_id: str, new_id: str) -> None:
        await self._keeper.require(new_id)
        source = await self._keeper.home_of(source_id)
        if source is None:
            raise NotFound(NO_INSTANCE)
        if await self._keeper.may_open(source_id):
            await self._hubs.clone(source_id, new_id)
        else:
            peer = self._peers.at(source)
            await self._hubs.receive(new_id, lambda path: self._parcels.fetch(peer, COPY, source_id, path))

    async def _give(self, question: bytes, machine: str) -> bytes:
        async with self._hubs.use(question.decode()) as hub:
            return await self._parcels.pack(hub.copy)
