"""The lease and the hand-over as a model: machines, clocks and a network that may do anything, never two owners.

The code of the app decides; what is simulated is time, the writer's turn, what is on its way, and who sleeps.
"""

import asyncio
import itertools
import random
import sqlite3
from collections import deque
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from app.edge import homes, migrate
from app.edge.database import written_position
from app.edge.homes import Home, Machine
from app.edge.lease import LEASE_SECONDS, Lease
from app.edge.liveness import Liveness
from app.edge.node import Node
from app.edge.ownership import Ownership
from app.edge.registry import Registry
from app.edge.transaction import Connection, Position, Transaction

OWNERS = ("m1", "m2", "m3")
NAMES = ("a", "b")
# How far a machine's clock may be off in its pace.
PACES = {"m1": 1.0, "m2": 0.995, "m3": 1.004}

MESSAGES = 12
WALKS, STEPS = 40, 3_000
SPANS = (0.3, 1.0, 2.0, 20.0, 44.0, LEASE_SECONDS - 1, LEASE_SECONDS, LEASE_SECONDS + 1)


class World:
    """True time, and the loop on which the registry's coroutines stand still until something lets them go on."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.loop = asyncio.new_event_loop()
        self.tasks: list[asyncio.Task[Any]] = []

    def start(self, work: Any, then: Callable[[Any], None]) -> None:
        async def run() -> None:
            try:
                value = await work
            except Exception:  # noqa: BLE001 - a refusal is an outcome: whoever asked hears nothing
                return
            then(value)

        self.tasks.append(self.loop.create_task(run()))
        self.settle()

    def settle(self) -> None:
        async def breathe() -> None:
            for _ in range(20):
                await asyncio.sleep(0)

        self.loop.run_until_complete(breathe())

    def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        self.settle()
        self.loop.close()


class Core:
    """The primary's database: reads at once, and a writer that commits one job when it is told to."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.raw = sqlite3.connect(":memory:", isolation_level=None)
        scripts = [(migrate.MIGRATIONS / "core" / name).read_text() for name in ("0006_homes.sql", "0007_opened.sql")]
        for statement in migrate.split_statements("".join(scripts)):
            if "CREATE TABLE" in statement or "CREATE INDEX" in statement or "ALTER TABLE homes" in statement:
                self.raw.execute(statement)
        self.sequence = 0
        self.jobs: deque[tuple[Callable[..., Any], tuple[Any, ...], asyncio.Future[Any]]] = deque()
        # What the homes were after each commit: what a replica may show.
        self.past: list[dict[str, Home]] = [{}]

    async def read(self, fn: Callable[..., Any], *args: Any) -> Any:
        return fn(Connection(self.raw), *args)

    async def write(self, fn: Callable[..., Any], *args: Any) -> Any:
        future: asyncio.Future[Any] = self._world.loop.create_future()
        self.jobs.append((fn, args, future))
        value, sequence = await future
        written_position.set(Position("e", sequence))
        return value

    def commit_one(self) -> None:
        fn, args, future = self.jobs.popleft()
        self.raw.execute("BEGIN IMMEDIATE")
        try:
            value = fn(Transaction(self.raw), *args)
        except Exception as error:  # noqa: BLE001 - as the writer does
            self.raw.execute("ROLLBACK")
            if not future.done():
                future.set_exception(error)
        else:
            self.raw.execute("COMMIT")
            self.sequence += 1
            rows = self.raw.execute("SELECT name, machine, region, number, epoch, source, opened FROM homes").fetchall()
            self.past.append({row[0]: Home(*row) for row in rows})
            if not future.done():
                future.set_result((value, self.sequence))
        self._world.settle()


class Answer(NamedTuple):
    """Something on its way back to a machine's process."""

    machine: "Owner"
    process: int
    tell: Callable[[], None]


class Owner:
    """A machine: its process, its clock, its replica, and what it has open."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self.me = Machine(name, f"region-of-{name}")
        self.process = 0
        self.up = False
        self.asleep = False
        self.host_lost = False
        self.seen = 0
        self.start()

    def start(self) -> None:
        """A new process knows nothing of the one before; the replica is the machine's and stays."""
        self.process += 1
        self.up, self.asleep = True, False
        self.node = Node(self.me.region, self.me.machine, is_primary=False)
        self.node.position = Position("e", self.seen)
        self.lease = Lease(lambda: self._world.now * PACES[self.me.machine])
        self.owning = Ownership(self.me, self.lease, self.node)
        self.open: dict[str, Home] = {}
        self.wanted_session: str | None = None

    def acknowledges(self, name: str) -> bool:
        """What it does before each acknowledgement."""
        return self.up and not self.asleep and name in self.open and self.lease.held


class Play:
    """The machines, the primary, and what is on its way. Each method is one thing that may happen."""

    registry_type: type[Registry] = Registry

    def __init__(self) -> None:
        self.world = World()
        self.core = Core(self.world)
        self.machines = {name: Owner(self.world, name) for name in OWNERS}
        self.messages: list[Callable[[], None] | Answer] = []
        self.numbers = itertools.count(1)
        self.taken_away = 0
        self.start_primary()

    def end(self) -> None:
        self.world.stop()
        self.core.raw.close()

    def start_primary(self) -> None:
        """Its memory is new; its file stays. What was on its way to the old process is answered by nobody."""
        self.core.jobs.clear()
        listed = homes.list_sessions(Connection(self.core.raw))
        self.known = Liveness({machine.machine: session for machine, session in listed}, lambda: self.world.now)
        regions = {machine.machine: machine.region for machine, _ in listed}
        self.registry = self.registry_type(
            self.core,  # type: ignore[arg-type]
            self.known,
            lambda *_: "nowhere",
            regions,
            lambda: str(next(self.numbers)),
        )
        self.messages = [message for message in self.messages if isinstance(message, Answer)]

    def awake(self, name: str) -> Owner | None:
        machine = self.machines[name]
        return machine if machine.up and not machine.asleep else None

    def send(self, request: Callable[[], None], prompt: bool) -> None:
        """On its way; or, promptly, there and back before anything else happens."""
        if not prompt:
            if len(self.messages) < MESSAGES:
                self.messages.append(request)
            return
        before = len(self.messages)
        request()
        while self.core.jobs:
            self.core.commit_one()
        answers, self.messages = self.messages[before:], self.messages[:before]
        for answer in answers:
            self.deliver(answer)

    def answer(self, machine: Owner, process: int, tell: Callable[[], None]) -> None:
        self.messages.append(Answer(machine, process, tell))

    def deliver(self, message: Callable[[], None] | Answer) -> None:
        if not isinstance(message, Answer):
            message()
        elif message.machine.process == message.process and self.awake(message.machine.me.machine):
            message.tell()

    # -- what machines do ------------------------------------------------------------------------------

    def begin(self, name: str, prompt: bool) -> None:
        machine = self.awake(name)
        if machine is None:
            return
        session, sent_at, process = f"s{next(self.numbers)}", machine.lease.sending(), machine.process
        machine.wanted_session = session

        def begun(position: Position) -> None:
            def tell() -> None:
                if machine.wanted_session == session:
                    machine.open.clear()
                    machine.owning.begin(session, sent_at, position)

            self.answer(machine, process, tell)

        registry = self.registry
        self.send(lambda: self.world.start(registry.begin(machine.me, session), begun), prompt)

    def beat(self, name: str, prompt: bool) -> None:
        machine = self.awake(name)
        if machine is None or machine.lease.session is None:
            return
        session, sent_at, process = machine.lease.session, machine.lease.sending(), machine.process

        def beaten(renewed: bool) -> None:
            def tell() -> None:
                if renewed:
                    machine.lease.renew(session, sent_at)
                elif machine.lease.session == session:
                    machine.lease.end()
                    machine.open.clear()

            self.answer(machine, process, tell)

        registry = self.registry
        self.send(lambda: self.world.start(registry.beat(machine.me, session), beaten), prompt)

    def use(self, name: str, key: str, prompt: bool) -> None:
        """Somebody asks for it here: open what is ours, ask the primary for what is not."""
        machine = self.awake(name)
        if machine is None or key in machine.open:
            return
        home = machine.owning.newest(key, self.core.past[machine.seen].get(key))
        if machine.owning.owns(home):
            assert home is not None
            machine.open[key] = home
            return
        if home is not None and home.machine == name and machine.owning.has_left(home):
            self.keep(machine, home, prompt)
            return
        registry, process = self.registry, machine.process

        def claimed(given: Home) -> None:
            self.taken_away += given.number > 1
            self.answer(machine, process, lambda: machine.owning.tell(given))

        self.send(lambda: self.world.start(registry.claim(key, machine.me), claimed), prompt)

    def keep(self, machine: Owner, home: Home, prompt: bool) -> None:
        """Nothing was heard of a hand-over: have it again, under a number at which that comes to nothing."""
        registry, process = self.registry, machine.process

        def kept(new: Home) -> None:
            self.answer(machine, process, lambda: machine.owning.tell(new))

        self.send(lambda: self.world.start(registry.raise_number(home, 0), kept), prompt)

    def hand_over(self, name: str, key: str, to: str, prompt: bool) -> None:
        machine = self.awake(name)
        if machine is None or key not in machine.open or name == to or machine.lease.session is None:
            return
        home, process, session = machine.open.pop(key), machine.process, machine.lease.session
        machine.owning.leave(home)
        registry, target = self.registry, self.machines[to].me

        def given(new: Home) -> None:
            self.answer(machine, process, lambda: machine.owning.tell(new))

        self.send(lambda: self.world.start(registry.hand_over(home, target, session), given), prompt)

    def leave(self, name: str, prompt: bool) -> None:
        """It is told to stop: it closes all that it has open, says so, and ends, whether it was heard or not."""
        machine = self.awake(name)
        if machine is None:
            return
        session = machine.lease.session
        self.let_go(machine)
        if session is not None:
            registry = self.registry
            self.send(lambda: self.world.start(registry.leave(machine.me, session, ()), lambda _: None), prompt)

    def let_go(self, machine: Owner) -> None:
        machine.open.clear()
        machine.lease.end()
        machine.up = False

    # -- what the world does ---------------------------------------------------------------------------

    def arrive(self, index: int) -> None:
        """Any message, in any order, however late."""
        if self.messages:
            self.deliver(self.messages.pop(index % len(self.messages)))

    def lose(self, index: int) -> None:
        if self.messages:
            self.messages.pop(index % len(self.messages))

    def commit(self) -> None:
        if self.core.jobs:
            self.core.commit_one()

    def replicate(self, name: str, commits: int) -> None:
        machine = self.machines[name]
        machine.seen = min(machine.seen + commits, self.core.sequence)
        machine.node.advance(Position("e", machine.seen))

    def wait(self, seconds: float) -> None:
        self.world.now += seconds

    def sleep(self, name: str) -> None:
        self.machines[name].asleep = True

    def wake(self, name: str) -> None:
        self.machines[name].asleep = False

    def kill(self, name: str) -> None:
        self.machines[name].up = False

    def start(self, name: str) -> None:
        machine = self.machines[name]
        if not machine.up and not machine.host_lost:
            machine.start()

    def try_port(self, name: str) -> None:
        """Only a host without the process refuses; a sleeping one accepts, and of a lost one nothing is heard."""
        machine = self.machines[name]
        if machine.up or machine.host_lost:
            self.known.accepts(name)
        else:
            self.known.refuses(name, self.known.now)

    def call_lost(self, name: str, prompt: bool) -> None:
        """An operator says so, of a machine that is really gone."""
        machine = self.machines[name]
        if not machine.up and name != OWNERS[0]:
            machine.host_lost = True
            registry = self.registry
            self.send(lambda: self.world.start(registry.lose(name), lambda _: None), prompt)

    # -- what must hold --------------------------------------------------------------------------------

    def check_owners(self) -> None:
        for key in NAMES:
            owning = [name for name, machine in self.machines.items() if machine.acknowledges(key)]
            assert len(owning) <= 1, f"{key} is acknowledged by {owning}"

    def check_epochs(self) -> None:
        """An epoch has had one owner."""
        owner: dict[tuple[str, int], str] = {}
        for home in (home for state in self.core.past for home in state.values()):
            assert owner.setdefault((home.name, home.number), home.machine) == home.machine


owners, names, prompt = st.sampled_from(OWNERS), st.sampled_from(NAMES), st.booleans()


class Homes(RuleBasedStateMachine):
    """Hypothesis looks for the short ways in which it could go wrong, and shrinks what it finds."""

    def __init__(self) -> None:
        super().__init__()
        self.play = Play()
        for name in OWNERS:
            self.play.begin(name, True)
            self.play.replicate(name, 10)

    def teardown(self) -> None:
        self.play.check_epochs()
        self.play.end()

    begins = rule(name=owners, prompt=prompt)(lambda self, **given: self.play.begin(**given))
    beats = rule(name=owners, prompt=prompt)(lambda self, **given: self.play.beat(**given))
    uses = rule(name=owners, key=names, prompt=prompt)(lambda self, **given: self.play.use(**given))
    hands_over = rule(name=owners, key=names, to=owners, prompt=prompt)(
        lambda self, **given: self.play.hand_over(**given)
    )
    leaves = rule(name=owners, prompt=prompt)(lambda self, **given: self.play.leave(**given))
    arrives = rule(index=st.integers(0, MESSAGES))(lambda self, index: self.play.arrive(index))
    is_lost = rule(index=st.integers(0, MESSAGES))(lambda self, index: self.play.lose(index))
    commits = rule()(lambda self: self.play.commit())
    replicates = rule(name=owners, commits=st.integers(1, 10))(lambda self, **given: self.play.replicate(**given))
    waits = rule(seconds=st.sampled_from(SPANS))(lambda self, seconds: self.play.wait(seconds))
    sleeps = rule(name=owners)(lambda self, name: self.play.sleep(name))
    wakes = rule(name=owners)(lambda self, name: self.play.wake(name))
    is_killed = rule(name=owners)(lambda self, name: self.play.kill(name))
    starts = rule(name=owners)(lambda self, name: self.play.start(name))
    is_tried = rule(name=owners)(lambda self, name: self.play.try_port(name))
    is_called_lost = rule(name=owners, prompt=prompt)(lambda self, **given: self.play.call_lost(**given))
    primary_starts = rule()(lambda self: self.play.start_primary())

    @invariant()
    def nobody_acknowledges_beside_another(self) -> None:
        self.play.check_owners()


Homes.TestCase.settings = settings(
    max_examples=60, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
TestHomes = Homes.TestCase


@pytest.mark.parametrize("seed", range(WALKS))
def test_a_long_walk_never_has_two_owners(seed: int) -> None:
    """Where hypothesis goes few steps, this goes far: sessions end, and much is taken away and handed over."""
    play = Play()
    walk(play, seed)
    assert play.taken_away > 10


class TellsFirst(Play):
    """Machines that say that they leave before they have closed what they own."""

    def let_go(self, machine: Owner) -> None:
        """They end at some time later: they are killed."""


class Forgetful(Registry):
    """One that asks of no goodbye how long it was on its way."""

    async def leave(self, machine: Machine, session: str, kept: Collection[str]) -> None:
        await self.lose(machine.machine)


class HearsLate(Play):
    """Goodbyes that are on their way while their machine begins anew."""

    registry_type = Forgetful

    def leave(self, name: str, prompt: bool) -> None:
        super().leave(name, False)
        self.start(name)
        self.begin(name, True)


@pytest.mark.parametrize("wrong", [TellsFirst, HearsLate])
def test_the_walks_find_who_leaves_in_a_wrong_way(wrong: type[Play]) -> None:
    with pytest.raises(AssertionError, match="is acknowledged by"):
        for seed in range(5 * WALKS):
            walk(wrong(), seed)


def walk(play: Play, seed: int) -> None:
    """At random, as far as STEPS; ends the play."""
    chance = random.Random(seed)

    def owner() -> str:
        return chance.choice(OWNERS)

    def soon() -> bool:
        return chance.random() < 0.7

    happens: list[tuple[int, Callable[[], None]]] = [
        (6, lambda: play.begin(owner(), soon())),
        (40, lambda: play.beat(owner(), soon())),
        (40, lambda: play.use(owner(), chance.choice(NAMES), soon())),
        (15, lambda: play.hand_over(owner(), chance.choice(NAMES), owner(), soon())),
        (20, lambda: play.arrive(chance.randrange(MESSAGES))),
        (3, lambda: play.lose(chance.randrange(MESSAGES))),
        (20, play.commit),
        (20, lambda: play.replicate(owner(), chance.choice((1, 2, 1_000)))),
        (12, lambda: play.wait(chance.choices(SPANS, (20, 20, 10, 6, 3, 1, 1, 1))[0])),
        (3, lambda: play.sleep(owner())),
        (12, lambda: play.wake(owner())),
        (2, lambda: play.kill(owner())),
        (6, lambda: play.leave(owner(), chance.random() < 0.3)),
        (8, lambda: play.start(owner())),
        (8, lambda: play.try_port(owner())),
        (1, lambda: chance.random() < 0.02 and play.call_lost(owner(), soon())),
        (1, lambda: chance.random() < 0.2 and play.start_primary()),
    ]
    weights, deeds = zip(*happens, strict=True)
    try:
        for _ in range(STEPS):
            chance.choices(deeds, weights)[0]()
            play.check_owners()
        play.check_epochs()
    finally:
        play.end()
