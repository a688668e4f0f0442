"""What `make chaos` does to a cluster: which fault comes when, and how it is brought about."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

import psycopg

from tests.support.cluster import Cluster
from tests.support.postgres import PostgresServer

WORKERS: Final = ("orchestrator", "worker-1", "worker-2")
"""Processes that execute runs; the first serves the API, too."""
VICTIMS: Final = (*WORKERS, "gateway", "metrics", "cost")
FAILPOINTS: Final = {
    "orchestrator.before_sent_commit": WORKERS,
    "orchestrator.after_sent": WORKERS,
    "orchestrator.answer_received": WORKERS,
    "orchestrator.result_committed": WORKERS,
    "gateway.before_hold": ("gateway",),
    "gateway.after_hold": ("gateway",),
    "gateway.during_call": ("gateway",),
    "gateway.before_settle": ("gateway",),
    "gateway.after_settle": ("gateway",),
    "cost.hold_committed": ("cost",),
    "cost.settle_committed": ("cost",),
}
"""The crash table of ARCHITECTURE.md, with the processes that may die there."""
KILLS_OF_A_FAILPOINT: Final = 2
"""The process that is to die there takes the place of one that is killed first."""
KILLS_A_RESTART: Final = 8
KILLS_A_FREEZE: Final = 16
BOTH_AT_ONCE: Final = 0.15
LAST_HIT_MAX: Final = 6
PAUSE_S: Final = (0.1, 1.5)
LEASE_S: Final = 3.0
FROZEN_S: Final = LEASE_S + 2
"""A process that stands still for so long has lost its lease, and delivers what it had afterwards."""
DEATH_TIMEOUT_S: Final = 60.0
LOOK_EVERY_S: Final = 0.02


class Violation(AssertionError):
    """A promise was broken; the message says which."""


class RunCall(NamedTuple):
    """One attempt at a cell of a run."""

    run_id: str
    cell: int
    attempt: int


class Kind(StrEnum):
    """Kinds of faults."""

    KILL = "kill"
    FAILPOINT = "failpoint"
    FREEZE = "freeze"
    DATABASE = "database"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, so long after the cluster is whole again."""

    kind: Kind
    pause_s: float
    victims: tuple[str, ...] = ()
    failpoint: str = ""
    hit: int = 0
    """The pass through the failpoint that is the last one."""
    crash: bool = False
    """Whether the database gets no time to close."""

    def __str__(self) -> str:
        if self.kind is Kind.DATABASE:
            return f"database {'crash' if self.crash else 'restart'}"
        return " ".join([self.kind, *self.victims, *([f"at {self.failpoint}@{self.hit}"] if self.failpoint else [])])


def plan(seed: int, kills: int) -> list[Fault]:
    """The faults of a seed: `kills` times kill -9 at least, every failpoint and every victim where there are enough."""
    chance = random.Random(f"chaos-{seed}")  # noqa: S311 - faults that can be repeated
    points = chance.sample(sorted(FAILPOINTS), min(len(FAILPOINTS), kills // (KILLS_OF_A_FAILPOINT + 1)))
    faults = []
    for point in points:
        victim, hit = chance.choice(FAILPOINTS[point]), chance.randint(1, LAST_HIT_MAX)
        faults.append(Fault(Kind.FAILPOINT, _pause(chance), (victim,), point, hit))
    left = kills - len(faults) * KILLS_OF_A_FAILPOINT
    order: list[str] = []
    while left > 0:
        order = order or chance.sample(VICTIMS, len(VICTIMS))
        count = min(len(order), 2 if chance.random() < BOTH_AT_ONCE else 1)
        faults.append(Fault(Kind.KILL, _pause(chance), tuple(order[:count])))
        order, left = order[count:], left - count
    restarts = kills // KILLS_A_RESTART
    faults += [Fault(Kind.DATABASE, _pause(chance), crash=number % 2 == 0) for number in range(restarts)]
    faults += [Fault(Kind.FREEZE, _pause(chance), (chance.choice(WORKERS),)) for _ in range(kills // KILLS_A_FREEZE)]
    chance.shuffle(faults)
    return faults


def _pause(chance: random.Random) -> float:
    return round(chance.uniform(*PAUSE_S), 2)


@dataclass(slots=True)
class Faults:
    """Brings faults about, and notes what was under way at each."""

    services: Cluster
    postgres: PostgresServer
    in_flight: set[RunCall] = field(default_factory=set)
    """Every call that was under way when something was killed, as the ledger has it."""
    kills: Counter[str] = field(default_factory=Counter)
    """How often each process was killed."""
    done: Counter[Kind] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    """How often a process died at each failpoint."""

    def inject(self, fault: Fault) -> None:
        """Do it, and make the cluster whole again. Raises Violation where something else breaks."""
        time.sleep(fault.pause_s)
        self._nobody_else_died()
        {
            Kind.KILL: self._kill,
            Kind.FAILPOINT: self._die_at_failpoint,
            Kind.FREEZE: self._freeze,
            Kind.DATABASE: self._restart_database,
        }[fault.kind](fault)
        self.done[fault.kind] += 1

    def _kill(self, fault: Fault) -> None:
        with self._noting():
            for victim in fault.victims:
                self._kill_one(victim)
        for victim in fault.victims:
            self.services.launch(victim)
        for victim in fault.victims:
            self.services.wait_healthy(victim)

    def _kill_one(self, victim: str) -> None:
        self.services.kill(victim)
        self.kills[victim] += 1

    def _die_at_failpoint(self, fault: Fault) -> None:
        (victim,) = fault.victims
        with self._noting():
            self._kill_one(victim)
        self.services.launch(victim, LLMLAB_FAILPOINTS=f"{fault.failpoint}=kill@{fault.hit}")
        process = self.services.processes[victim]
        give_up_at = time.monotonic() + DEATH_TIMEOUT_S
        earlier = before = self._under_way()
        while process.poll() is None:
            earlier, before = before, self._under_way()
            if time.monotonic() > give_up_at:
                raise Violation(f"{victim} did not come to {fault.failpoint} {fault.hit} times")
            time.sleep(LOOK_EVERY_S)
        self.in_flight |= earlier | before | self._under_way()
        status = self.services.wait_end(victim)
        if status != -signal.SIGKILL:
            raise Violation(f"{victim} was to die at {fault.failpoint} and ended with {status}")
        self.kills[victim] += 1
        self.hits[fault.failpoint] += 1
        self.services.start(victim)

    def _freeze(self, fault: Fault) -> None:
        (victim,) = fault.victims
        process = self.services.processes[victim]
        # It may hold rows of the ledger meanwhile: nobody else is killed before it goes on.
        with self._noting():
            process.send_signal(signal.SIGSTOP)
            time.sleep(FROZEN_S)
        process.send_signal(signal.SIGCONT)

    def _restart_database(self, fault: Fault) -> None:
        with self._noting():
            if fault.crash:
                self.postgres.kill()
            else:
                self.postgres.stop()
            self.postgres.start()

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Note what is under way before and after: calls leave between the two."""
        self.in_flight |= self._under_way()
        yield
        self.in_flight |= self._under_way()

    def _under_way(self) -> set[RunCall]:
        with psycopg.connect(self.postgres.url) as connection:
            rows = connection.execute("SELECT run_id, cell, attempt FROM orchestrator.in_flight").fetchall()
        return {RunCall(*row) for row in rows}

    def _nobody_else_died(self) -> None:
        for name, process in self.services.processes.items():
            if process.poll() is not None:
                raise Violation(f"{name} ended by itself with {process.returncode}:\n{self.services.log(name)}")
