"""Chat in SQL: one transaction for each method of the port."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, Row, and_, delete, func, insert, select, tuple_, update

from services.gateway.calls import Parameters, Part
from services.gateway.chat.history import HISTORY_TURNS_MAX, messages_with_history
from services.gateway.chat.sessions import BegunTurn, ChatSession, StreamPart, Turn, TurnLost, TurnState
from services.gateway.collector import Collector
from services.gateway.event_codec import decode_parts, decode_reads, encode_parts
from services.gateway.store.chat_tables import request_ids, sessions, stream_parts, turns
from services.runtime.database import Database
from services.runtime.errors import AlreadyExists, NotFound, OutOfRange, ResourceExhausted, WrongState
from services.runtime.requests import RememberedRequests, RequestKey

_RUNNING = TurnState.RUNNING.value


@dataclass(frozen=True, slots=True)
class ChatLimits:
    """Bounds of what is kept, and how long a running turn may show no life before it counts as lost."""

    sessions_max: int = 10_000
    turns_max: int = 1_000
    alive_for_s: float = 20.0


class SqlChatStore:
    """See ChatStore. Only the latest turn of a session keeps its stream; the text of all turns stays."""

    def __init__(self, database: Database, limits: ChatLimits, lost_outcome: Callable[[Turn], bytes]) -> None:
        """`lost_outcome` is what stands for the outcome of a turn whose gateway was lost."""
        self._database = database
        self._lost_outcome = lost_outcome
        self._limits = limits
        self._requests = RememberedRequests(database, request_ids)

    async def create(self, project_id: str, session: ChatSession, request_id: str) -> ChatSession:
        """See ChatStore.create."""
        return await self._database.write(self._create, project_id, session, request_id)

    def _create(self, connection: Connection, project_id: str, session: ChatSession, request_id: str) -> ChatSession:
        def do() -> bytes:
            count = connection.execute(
                select(func.count()).select_from(sessions).where(sessions.c.project_id == project_id)
            ).scalar_one()
            if count >= self._limits.sessions_max:
                message = f"the project has {count} chat sessions, which is the limit; delete some"
                raise ResourceExhausted("LIMIT_REACHED", message)
            now_us = self._database.now_us(connection)
            row = asdict(session) | {"project_id": project_id, "created_us": now_us, "updated_us": now_us}
            connection.execute(insert(sessions), row | {"parameters": orjson.dumps(session.parameters)})
            return session.session_id.encode()

        asked = replace(session, session_id="")
        key = RequestKey(project_id, "CreateChatSession", request_id)
        session_id = self._requests.once(connection, key, orjson.dumps(asked), do)
        return self._get(connection, project_id, session_id.decode())

    async def get(self, project_id: str, session_id: str) -> ChatSession:
        """See ChatStore.get."""
        return await self._database.read(self._get, project_id, session_id)

    def _get(self, connection: Connection, project_id: str, session_id: str, *, lock: bool = False) -> ChatSession:
        query = select(sessions).where(sessions.c.session_id == session_id, sessions.c.project_id == project_id)
        row = connection.execute(query.with_for_update() if lock else query).first()
        if row is None:
            raise NotFound("chat session", session_id)
        return _session(row)

    async def list(self, project_id: str, before: tuple[int, str] | None, limit: int) -> Sequence[ChatSession]:
        """See ChatStore.list."""

        def read(connection: Connection) -> Sequence[ChatSession]:
            position = (sessions.c.created_us, sessions.c.session_id)
            query = select(sessions).where(sessions.c.project_id == project_id)
            if before is not None:
                query = query.where(tuple_(*position) < before)
            query = query.order_by(*(column.desc() for column in position)).limit(limit)
            return [_session(row) for row in connection.execute(query)]

        return await self._database.read(read)

    async def delete(self, project_id: str, session_id: str) -> None:
        """See ChatStore.delete."""

        def write(connection: Connection) -> None:
            self._get(connection, project_id, session_id, lock=True)
            for table in (stream_parts, turns, sessions):
                connection.execute(delete(table).where(table.c.session_id == session_id))

        await self._database.write(write)

    async def turns(self, project_id: str, session_id: str, after: int, limit: int) -> Sequence[Turn]:
        """See ChatStore.turns."""

        def read(connection: Connection) -> Sequence[Turn]:
            self._get(connection, project_id, session_id)
            query = select(turns).where(turns.c.session_id == session_id, turns.c.number > after)
            now_us = self._database.now_us(connection)
            return [_turn(row, now_us) for row in connection.execute(query.order_by(turns.c.number).limit(limit))]

        return await self._database.read(read)

    async def begin(self, project_id: str, session_id: str, turn_id: str, question: tuple[Part, ...]) -> BegunTurn:
        """See ChatStore.begin."""
        return await self._database.write(self._begin, project_id, session_id, turn_id, question)

    def _begin(
        self, connection: Connection, project_id: str, session_id: str, turn_id: str, question: tuple[Part, ...]
    ) -> BegunTurn:
        session = self._get(connection, project_id, session_id, lock=True)
        now_us = self._database.now_us(connection)
        before = self._find(connection, session_id, turn_id)
        if before is not None:
            if before.question != encode_parts(question):
                message = f"turn {turn_id!r} of this session asked something else; send a new turn_id"
                raise AlreadyExists("REQUEST_ID_REUSED", message)
            return BegunTurn(session, _turn(before, now_us), repeated=True)
        self._check_may_begin(connection, session, now_us)
        number = session.turns + 1
        messages, history_turns = messages_with_history(
            session.system, self._latest_first(connection, session_id), question, session.history_tokens_max
        )
        turn = Turn(session_id, turn_id, number, TurnState.RUNNING, question, (), b"", now_us)
        turn = replace(turn, history_turns=history_turns)
        row = asdict(turn) | {
            "state": _RUNNING,
            "question": encode_parts(question),
            "answer": encode_parts(()),
            "first_sequence": 1,
            "alive_until_us": self._alive_until_us(now_us),
        }
        del row["lost"]
        # Only the latest turn can be followed from its beginning.
        connection.execute(delete(stream_parts).where(stream_parts.c.session_id == session_id))
        latest = update(turns).where(turns.c.session_id == session_id, turns.c.number == session.turns)
        connection.execute(latest.values(first_sequence=turns.c.last_sequence + 1))
        connection.execute(insert(turns), row)
        changed = {"turns": number, "running_turn_id": turn_id, "updated_us": now_us}
        connection.execute(update(sessions).where(sessions.c.session_id == session_id).values(changed))
        return BegunTurn(session, turn, messages)

    def _check_may_begin(self, connection: Connection, session: ChatSession, now_us: int) -> None:
        if session.turns >= self._limits.turns_max:
            message = f"the session has {session.turns} turns, which is the limit; begin a new session"
            raise ResourceExhausted("LIMIT_REACHED", message)
        running = session.running_turn_id and self._find(connection, session.session_id, session.running_turn_id)
        if running and not _turn(running, now_us).lost:
            message = f"turn {session.running_turn_id!r} is under way; wait for its end or cancel it"
            raise WrongState("WRONG_STATE", message)
        if running:
            self._give_up(connection, _turn(running, now_us))

    def _latest_first(
        self, connection: Connection, session_id: str
    ) -> Sequence[tuple[tuple[Part, ...], tuple[Part, ...]]]:
        query = (
            select(turns.c.question, turns.c.answer)
            .where(turns.c.session_id == session_id, turns.c.state == TurnState.COMPLETED.value)
            .order_by(turns.c.number.desc())
            .limit(HISTORY_TURNS_MAX)
        )
        return [(decode_parts(row.question), decode_parts(row.answer)) for row in connection.execute(query)]

    async def append(self, turn: Turn, part: StreamPart) -> None:
        """See ChatStore.append."""

        def write(connection: Connection) -> None:
            self._touch(connection, turn, last_sequence=part.sequence)
            row = {"session_id": turn.session_id, "number": turn.number, "sequence": part.sequence, "reads": part.reads}
            connection.execute(self._database.upsert(stream_parts).values(row).on_conflict_do_nothing())

        await self._database.write(write)

    async def show_life(self, turn: Turn) -> bool:
        """See ChatStore.show_life."""
        return await self._database.write(self._touch, turn)

    def _touch(self, connection: Connection, turn: Turn, **changed: int) -> bool:
        alive_until_us = self._alive_until_us(self._database.now_us(connection))
        touched = update(turns).where(_is_running(turn)).values(alive_until_us=alive_until_us, **changed)
        cancelled = connection.execute(touched.returning(turns.c.cancelled)).scalar_one_or_none()
        if cancelled is None:
            raise TurnLost(f"turn {turn.turn_id} of {turn.session_id} does not run any more")
        return bool(cancelled)

    async def end(self, turn: Turn, state: TurnState, answer: tuple[Part, ...], outcome: bytes) -> None:
        """See ChatStore.end."""
        await self._database.write(self._end, turn, state, answer, outcome)

    async def give_up(self, turn: Turn) -> None:
        """See ChatStore.give_up."""

        def write(connection: Connection) -> None:
            now_us = self._database.now_us(connection)
            row = self._find(connection, turn.session_id, turn.turn_id)
            # It may have shown life meanwhile.
            if row is not None and _turn(row, now_us).lost:
                self._give_up(connection, turn)

        await self._database.write(write)

    def _give_up(self, connection: Connection, turn: Turn) -> None:
        query = select(stream_parts.c.reads).where(
            stream_parts.c.session_id == turn.session_id, stream_parts.c.number == turn.number
        )
        collector = Collector()
        for row in connection.execute(query.order_by(stream_parts.c.sequence)):
            for read in decode_reads(row.reads):
                collector.add(read.events)
        self._end(connection, turn, TurnState.FAILED, collector.parts(), self._lost_outcome(turn))

    def _end(
        self, connection: Connection, turn: Turn, state: TurnState, answer: tuple[Part, ...], outcome: bytes
    ) -> None:
        ended_us = self._database.now_us(connection)
        values = {"state": state.value, "answer": encode_parts(answer), "outcome": outcome, "ended_us": ended_us}
        connection.execute(update(turns).where(_is_running(turn)).values(values))
        free = update(sessions).where(
            sessions.c.session_id == turn.session_id, sessions.c.running_turn_id == turn.turn_id
        )
        connection.execute(free.values(running_turn_id="", updated_us=ended_us))

    async def follow(
        self, project_id: str, session_id: str, turn_id: str, after: int, limit: int
    ) -> tuple[Turn, Sequence[StreamPart]]:
        """See ChatStore.follow."""

        def read(connection: Connection) -> tuple[Turn, Sequence[StreamPart]]:
            self._get(connection, project_id, session_id)
            row = self._find(connection, session_id, turn_id)
            if row is None:
                raise NotFound("chat turn", turn_id)
            if after + 1 < row.first_sequence:
                message = "only the latest turn of a session keeps its stream; read this turn with ListChatTurns"
                raise OutOfRange("SEQUENCE_OUT_OF_RANGE", message)
            query = (
                select(stream_parts.c.sequence, stream_parts.c.reads)
                .where(stream_parts.c.session_id == session_id, stream_parts.c.number == row.number)
                .where(stream_parts.c.sequence > after)
                .order_by(stream_parts.c.sequence)
                .limit(limit)
            )
            parts = [StreamPart(sequence, bytes(reads)) for sequence, reads in connection.execute(query)]
            return _turn(row, self._database.now_us(connection)), parts

        return await self._database.read(read)

    async def cancel(self, project_id: str, session_id: str, turn_id: str) -> bool:
        """See ChatStore.cancel."""

        def write(connection: Connection) -> bool:
            self._get(connection, project_id, session_id)
            row = self._find(connection, session_id, turn_id)
            if row is None:
                raise NotFound("chat turn", turn_id)
            ours = and_(turns.c.session_id == session_id, turns.c.number == row.number, turns.c.state == _RUNNING)
            asked = update(turns).where(ours).values(cancelled=True).returning(turns.c.number)
            return connection.execute(asked).first() is not None

        return await self._database.write(write)

    def _find(self, connection: Connection, session_id: str, turn_id: str) -> Row[Any] | None:
        query = select(turns).where(turns.c.session_id == session_id, turns.c.turn_id == turn_id)
        return connection.execute(query).first()

    def _alive_until_us(self, now_us: int) -> int:
        return now_us + round(self._limits.alive_for_s * 1_000_000)


def _is_running(turn: Turn) -> ColumnElement[bool]:
    return and_(turns.c.session_id == turn.session_id, turns.c.number == turn.number, turns.c.state == _RUNNING)


def _session(row: Row[Any]) -> ChatSession:
    values = dict(row._mapping)
    del values["project_id"]
    parameters = orjson.loads(values.pop("parameters"))
    parameters["stop"] = tuple(parameters["stop"])
    return ChatSession(parameters=Parameters(**parameters), **values)


def _turn(row: Row[Any], now_us: int) -> Turn:
    values = dict(row._mapping)
    del values["first_sequence"]
    running = values["state"] == _RUNNING
    lost = running and values.pop("alive_until_us") < now_us
    values.pop("alive_until_us", None)
    values |= {
        "state": TurnState(values["state"]),
        "question": decode_parts(values["question"]),
        "answer": decode_parts(values["answer"]),
        "outcome": bytes(values["outcome"]),
    }
    return Turn(lost=lost, **values)
