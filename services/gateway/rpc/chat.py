"""ChatService."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from llmlab.api.common.v1 import content_pb2
from llmlab.api.gateway.v1 import chat_pb2, chat_pb2_grpc, gateway_pb2
from services.gateway.attempts import CallOutcome, Completion, FailedCall
from services.gateway.calls import Owner, Parameters, Part
from services.gateway.chat.sessions import ChatSession, ChatStore, StreamPart, Turn, TurnState
from services.gateway.chat.turns import Asked, ChatTurns
from services.gateway.event_codec import decode_reads
from services.gateway.failures import CallFailed
from services.gateway.rpc.decode import decode_parameters, decode_part, decode_tools
from services.gateway.rpc.encode import (
    add_chunks,
    encode_completion,
    encode_outcome,
    encode_parameters,
    encode_part,
    error_of,
    error_of_call,
)
from services.gateway.settings import GatewaySettings
from services.runtime.context import current_principal
from services.runtime.errors import InvalidField, WrongState
from services.runtime.ids import new_id
from services.runtime.pages import decode_page_token, encode_page_token, filter_fingerprint

_PAGE_SIZE_DEFAULT = 50
_PAGE_BYTES = 2_097_152
_TIMEOUT_DEFAULT_MS = 300_000
_TEMPERATURE_DEFAULT = 0.7
_OUTPUT_TOKENS_DEFAULT = 10_000
_STATES = {
    TurnState.RUNNING: chat_pb2.CHAT_TURN_STATE_RUNNING,
    TurnState.COMPLETED: chat_pb2.CHAT_TURN_STATE_COMPLETED,
    TurnState.FAILED: chat_pb2.CHAT_TURN_STATE_FAILED,
    TurnState.CANCELLED: chat_pb2.CHAT_TURN_STATE_CANCELLED,
}


def seal_outcome(outcome: CallOutcome) -> bytes:
    """The outcome in the contract's bytes, without the parts of an answer: those are kept beside it."""
    if isinstance(outcome, Completion):
        completion = encode_completion(outcome, with_parts=False)
        return gateway_pb2.CallOutcome(call_id=outcome.call_id, completion=completion).SerializeToString()
    return encode_outcome(outcome).SerializeToString()


class ChatServicer(chat_pb2_grpc.ChatServiceServicer):
    """Chat sessions and their turns; without a store, the advice how to get one."""

    def __init__(self, kept: tuple[ChatStore, ChatTurns] | None, settings: GatewaySettings) -> None:
        self._kept = kept
        self._settings = settings

    async def CreateChatSession(
        self, request: chat_pb2.CreateChatSessionRequest, context: Any
    ) -> chat_pb2.CreateChatSessionResponse:
        """Begin a session."""
        owner = _owner()
        session = ChatSession(
            session_id=new_id("chat"),
            user_id=owner.user_id,
            title=request.title,
            model=request.model,
            system=request.system,
            parameters=_with_defaults(request.parameters),
            history_tokens_max=request.history_tokens_max or self._settings.chat_history_tokens,
        )
        made = await self._store.create(owner.project_id, session, request.request_id)
        return chat_pb2.CreateChatSessionResponse(session=_session(made))

    async def GetChatSession(
        self, request: chat_pb2.GetChatSessionRequest, context: Any
    ) -> chat_pb2.GetChatSessionResponse:
        """Give one session."""
        session = await self._store.get(_owner().project_id, request.session_id)
        return chat_pb2.GetChatSessionResponse(session=_session(session))

    async def ListChatSessions(
        self, request: chat_pb2.ListChatSessionsRequest, context: Any
    ) -> chat_pb2.ListChatSessionsResponse:
        """List the project's sessions."""
        project_id = _owner().project_id
        fingerprint = filter_fingerprint("ListChatSessions", project_id)
        after = decode_page_token(fingerprint, request.page_token)
        size = request.page_size or _PAGE_SIZE_DEFAULT
        position = None if after is None else (int(after[0]), str(after[1]))
        found = await self._store.list(project_id, position, size + 1)
        page = found[:size]
        token = ""
        if len(found) > size:
            token = encode_page_token(fingerprint, [page[-1].created_us, page[-1].session_id])
        return chat_pb2.ListChatSessionsResponse(
            sessions=[_session(session) for session in page], next_page_token=token
        )

    async def DeleteChatSession(
        self, request: chat_pb2.DeleteChatSessionRequest, context: Any
    ) -> chat_pb2.DeleteChatSessionResponse:
        """Delete a session."""
        await self._turns.delete(_owner(), request.session_id)
        return chat_pb2.DeleteChatSessionResponse()

    async def ListChatTurns(
        self, request: chat_pb2.ListChatTurnsRequest, context: Any
    ) -> chat_pb2.ListChatTurnsResponse:
        """List the turns of a session."""
        project_id = _owner().project_id
        fingerprint = filter_fingerprint("ListChatTurns", project_id, request.session_id)
        after = decode_page_token(fingerprint, request.page_token)
        size = request.page_size or _PAGE_SIZE_DEFAULT
        found = await self._store.turns(project_id, request.session_id, int(after[0]) if after else 0, size + 1)
        page = _fitting([_turn(turn) for turn in found[:size]])
        token = encode_page_token(fingerprint, [page[-1].number]) if len(found) > len(page) else ""
        return chat_pb2.ListChatTurnsResponse(turns=page, next_page_token=token)

    async def SendChatMessage(
        self, request: chat_pb2.SendChatMessageRequest, context: Any
    ) -> AsyncIterator[chat_pb2.SendChatMessageResponse]:
        """Begin a turn, or find the one that the same request began, and follow it."""
        turns, owner = self._turns, _owner()
        turn_id = request.turn_id or new_id("turn")
        try:
            asked = Asked(
                parts=tuple(_question_part(part, index) for index, part in enumerate(request.parts)),
                timeout_ms=request.timeout_ms or _TIMEOUT_DEFAULT_MS,
                tools=decode_tools(request.tools, request.tool_choice, "tool_choice"),
                tool_choice=request.tool_choice,
            )
            turn = await turns.begin(owner, request.session_id, turn_id, asked)
        except CallFailed as failed:
            raise error_of(FailedCall(turn_id, failed.failure)) from failed
        yield chat_pb2.SendChatMessageResponse(event=chat_pb2.ChatEvent(turn_id=turn.turn_id))
        async for event in _events(turns, owner, request.session_id, turn.turn_id, 0):
            yield chat_pb2.SendChatMessageResponse(event=event)

    async def WatchChatTurn(
        self, request: chat_pb2.WatchChatTurnRequest, context: Any
    ) -> AsyncIterator[chat_pb2.WatchChatTurnResponse]:
        """Follow a turn from a sequence on."""
        followed = _events(self._turns, _owner(), request.session_id, request.turn_id, request.after_sequence)
        async for event in followed:
            yield chat_pb2.WatchChatTurnResponse(event=event)

    async def CancelChatTurn(
        self, request: chat_pb2.CancelChatTurnRequest, context: Any
    ) -> chat_pb2.CancelChatTurnResponse:
        """Stop a turn."""
        cancelled = await self._turns.cancel(_owner(), request.session_id, request.turn_id)
        return chat_pb2.CancelChatTurnResponse(cancelled=cancelled)

    @property
    def _store(self) -> ChatStore:
        return self._configured[0]

    @property
    def _turns(self) -> ChatTurns:
        return self._configured[1]

    @property
    def _configured(self) -> tuple[ChatStore, ChatTurns]:
        if self._kept is None:
            message = (
                "this gateway keeps no chat sessions; set LLMLAB_GATEWAY_CHAT_HISTORY=true for it (and "
                "LLMLAB_GATEWAY_DATABASE_URL where it has replicas), or use StreamComplete, which needs no session"
            )
            raise WrongState("CHAT_NOT_CONFIGURED", message)
        return self._kept


async def _events(
    turns: ChatTurns, owner: Owner, session_id: str, turn_id: str, after: int
) -> AsyncIterator[chat_pb2.ChatEvent]:
    """A turn's stream on the wire: its parts, then its end as a chunk or as the status of a failure."""
    async for turn, parts in turns.follow(owner, session_id, turn_id, after):
        for part in parts:
            yield _event(turn, part)
        if turn.state is TurnState.RUNNING or (parts and parts[-1].sequence < turn.last_sequence):
            continue
        outcome = gateway_pb2.CallOutcome.FromString(turn.outcome)
        if outcome.HasField("error"):
            raise error_of_call(turn.call_id, outcome.error)
        if after <= turn.last_sequence:
            attempts = outcome.completion.attempts
            end = gateway_pb2.Chunk(offset_us=attempts[-1].duration_us if attempts else 0, finished=outcome.completion)
            yield chat_pb2.ChatEvent(turn_id=turn_id, sequence=turn.last_sequence + 1, chunks=[end])


def _event(turn: Turn, part: StreamPart) -> chat_pb2.ChatEvent:
    event = chat_pb2.ChatEvent(turn_id=turn.turn_id, sequence=part.sequence)
    for read in decode_reads(part.reads):
        add_chunks(event.chunks, read, turn.call_id)
    return event


def _fitting(turns: Sequence[chat_pb2.ChatTurn]) -> list[chat_pb2.ChatTurn]:
    """As many as a message takes, at least one."""
    page: list[chat_pb2.ChatTurn] = []
    size = 0
    for turn in turns:
        size += turn.ByteSize()
        if page and size > _PAGE_BYTES:
            break
        page.append(turn)
    return page


def _with_defaults(message: gateway_pb2.Parameters) -> Parameters:
    given = gateway_pb2.Parameters()
    given.CopyFrom(message)
    if not given.HasField("temperature"):
        given.temperature = _TEMPERATURE_DEFAULT
    if not given.HasField("max_output_tokens"):
        given.max_output_tokens = _OUTPUT_TOKENS_DEFAULT
    return decode_parameters(given)


def _question_part(part: content_pb2.ContentPart, index: int) -> Part:
    if part.WhichOneof("kind") not in ("text", "image", "tool_result"):
        raise InvalidField(f"parts[{index}]", "a question has texts, images and what tools answered")
    return decode_part(part, f"parts[{index}]")


def _session(session: ChatSession) -> chat_pb2.ChatSession:
    message = chat_pb2.ChatSession(
        session_id=session.session_id,
        title=session.title,
        model=session.model,
        system=session.system,
        parameters=encode_parameters(session.parameters),
        history_tokens_max=session.history_tokens_max,
        turns=session.turns,
        running_turn_id=session.running_turn_id,
    )
    message.created_at.FromMicroseconds(session.created_us)
    message.updated_at.FromMicroseconds(session.updated_us)
    return message


def _turn(turn: Turn) -> chat_pb2.ChatTurn:
    outcome = gateway_pb2.CallOutcome.FromString(turn.outcome)
    message = chat_pb2.ChatTurn(
        turn_id=turn.turn_id,
        number=turn.number,
        state=_STATES[turn.state],
        question=content_pb2.Message(role=content_pb2.ROLE_USER, parts=[encode_part(part) for part in turn.question]),
        completion=outcome.completion if outcome.HasField("completion") else None,
        error=outcome.error if outcome.HasField("error") else None,
        history_turns=turn.history_turns,
    )
    if turn.answer:
        parts = [encode_part(part) for part in turn.answer]
        message.answer.CopyFrom(content_pb2.Message(role=content_pb2.ROLE_ASSISTANT, parts=parts))
    message.created_at.FromMicroseconds(turn.created_us)
    if turn.ended_us:
        message.ended_at.FromMicroseconds(turn.ended_us)
    return message


def _owner() -> Owner:
    principal = current_principal()
    return Owner(principal.project_id, principal.user_id, principal.key_id)
