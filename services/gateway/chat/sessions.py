"""What is kept of a conversation, and the port to where it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Protocol

from services.gateway.calls import Message, Parameters, Part


@dataclass(frozen=True, slots=True)
class ChatSession:
    """A conversation with one model.

    Attributes:
        history_tokens_max: earlier turns that are sent along take at most so many tokens, by estimate.
        turns: how many there are.
        running_turn_id: the turn that is under way; empty: none.
    """

    session_id: str
    user_id: str
    title: str
    model: str
    system: str
    parameters: Parameters
    history_tokens_max: int
    created_us: int = 0
    updated_us: int = 0
    turns: int = 0
    running_turn_id: str = ""


class TurnState(Enum):
    """How a turn stands."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer.

    Attributes:
        number: 1, 2, 3 ... in the session.
        answer: what the model said, as far as it came.
        outcome: how the call ended, as the contract encodes it; empty while the turn runs.
        last_sequence: of the latest part of the stream.
        history_turns: earlier turns that were sent along.
        lost: it should be running, but the gateway that ran it has not been heard of.
        cancelled: somebody wants it stopped.
    """

    session_id: str
    turn_id: str
    number: int
    state: TurnState
    question: tuple[Part, ...]
    answer: tuple[Part, ...] = ()
    outcome: bytes = b""
    created_us: int = 0
    ended_us: int = 0
    last_sequence: int = 0
    history_turns: int = 0
    lost: bool = False
    cancelled: bool = False

    @property
    def call_id(self) -> str:
        """The id of its only call, and so of its bill."""
        return f"chat/{self.session_id}/{self.turn_id}"


class StreamPart(NamedTuple):
    """A part of a turn's stream: encoded reads under a sequence, 1, 2, 3 ..."""

    sequence: int
    reads: bytes


@dataclass(frozen=True, slots=True)
class BegunTurn:
    """A turn that was begun, or, where `repeated`, had been begun by the same request before."""

    session: ChatSession
    turn: Turn
    messages: Sequence[Message] = field(default=())
    repeated: bool = False


class TurnLost(Exception):
    """The turn is not this gateway's any more: it was given up, or its session was deleted."""


class ChatStore(Protocol):
    """Sessions and turns of all projects. Raises DomainError: NotFound, WrongState and what a database raises."""

    async def create(self, project_id: str, session: ChatSession, request_id: str) -> ChatSession:
        """Keep a new session; the same request id gives the first one."""
        ...

    async def get(self, project_id: str, session_id: str) -> ChatSession:
        """One session."""
        ...

    async def list(self, project_id: str, before: tuple[int, str] | None, limit: int) -> Sequence[ChatSession]:
        """Sessions, the latest first, after the position `before` (created_us, session_id)."""
        ...

    async def delete(self, project_id: str, session_id: str) -> None:
        """Forget a session with all its turns; one that runs is stopped."""
        ...

    async def turns(self, project_id: str, session_id: str, after: int, limit: int) -> Sequence[Turn]:
        """Turns in their order, after the number `after`."""
        ...

    async def begin(self, project_id: str, session_id: str, turn_id: str, question: tuple[Part, ...]) -> BegunTurn:
        """Begin a turn: the only one that runs in the session."""
        ...

    async def append(self, turn: Turn, part: StreamPart) -> None:
        """Keep a part of a turn's stream; shows life, too. Raises TurnLost."""
        ...

    async def show_life(self, turn: Turn) -> bool:
        """The turn is being run; returns whether somebody wants it stopped. Raises TurnLost."""
        ...

    async def end(self, turn: Turn, state: TurnState, answer: tuple[Part, ...], outcome: bytes) -> None:
        """The turn is over; nothing happens where it was given up before."""
        ...

    async def follow(
        self, project_id: str, session_id: str, turn_id: str, after: int, limit: int
    ) -> tuple[Turn, Sequence[StreamPart]]:
        """How a turn stands, and the parts of its stream after a sequence. Raises OutOfRange for forgotten parts."""
        ...

    async def give_up(self, turn: Turn) -> None:
        """End a lost turn as failed, with what is kept of its answer."""
        ...

    async def cancel(self, project_id: str, session_id: str, turn_id: str) -> bool:
        """Ask for a turn to be stopped; returns whether it runs."""
        ...
