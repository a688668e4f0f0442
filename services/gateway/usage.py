"""Token counts with one meaning: totals include their parts, whatever a provider's own convention is."""

from __future__ import annotations

from dataclasses import dataclass, replace

from services.gateway.calls import Call, ImagePart, ReasoningPart, TextPart, ToolCallPart, ToolResultPart

# Byte-pair tokenizers average about four bytes of English a token (OpenAI, "What are tokens and how to count them").
_BYTES_PER_TOKEN = 4
# For a reservation the text is assumed to be twice as dense: code, digits and scripts beyond Latin are.
_BYTES_PER_TOKEN_DENSE = 2
_TOKENS_PER_MESSAGE = 4
_TOKENS_PER_CALL = 16
# Upper bound of one picture: OpenAI's high detail is at most 1,445 tokens, Anthropic's limit is about 1,600.
_TOKENS_PER_IMAGE = 1_700


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of one call. `input_tokens` includes cached and audio tokens, `output_tokens` reasoning and audio.

    `measured` is False where the gateway estimated the counts because the provider reported none.
    """

    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    input_audio_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    output_audio_tokens: int = 0
    steps: int = 0
    """Billable steps of an automation."""
    measured: bool = True

    @property
    def counted(self) -> bool:
        """Whether anything was: servers that do not count say 0 of everything."""
        return bool(self.input_tokens or self.output_tokens)


def estimate_tokens(text: str) -> int:
    """How many tokens a text is likely to be: a token for every four bytes of UTF-8, rounded up."""
    size = len(text) if text.isascii() else len(text.encode())
    return -(-size // _BYTES_PER_TOKEN)


def estimate_input_tokens(call: Call, *, dense: bool = False) -> int:
    """Tokens that the provider is likely to count for the call's messages, tools and schema.

    `dense` gives an upper estimate instead, for the reservation of money.
    """
    size = images = 0
    for message in call.messages:
        for part in message.parts:
            match part:
                case TextPart(text) | ReasoningPart(text):
                    size += _utf8_size(text)
                case ToolCallPart(_, name, arguments):
                    size += len(name) + _utf8_size(arguments)
                case ToolResultPart(_, text):
                    size += _utf8_size(text)
                case ImagePart():
                    images += 1
    for tool in call.tools:
        size += len(tool.name) + _utf8_size(tool.description) + _utf8_size(tool.parameters_json_schema)
    size += _utf8_size(call.response_json_schema)
    divisor = _BYTES_PER_TOKEN_DENSE if dense else _BYTES_PER_TOKEN
    overhead = len(call.messages) * _TOKENS_PER_MESSAGE + (_TOKENS_PER_CALL if dense else 0)
    return -(-size // divisor) + overhead + images * _TOKENS_PER_IMAGE


def with_estimate(measured: TokenUsage | None, call: Call, output: str, reasoning: str) -> TokenUsage:
    """The usage of an answer whose provider did not say the last word: the larger of what it said and an estimate.

    A cut stream may carry an early figure (Anthropic reports the input at the start); that figure is kept and the
    output received so far is estimated.
    """
    known = measured or TokenUsage(input_tokens=estimate_input_tokens(call))
    reasoning_tokens = max(known.reasoning_tokens, estimate_tokens(reasoning))
    output_tokens = max(known.output_tokens, estimate_tokens(output) + reasoning_tokens)
    return replace(known, output_tokens=output_tokens, reasoning_tokens=reasoning_tokens, measured=False)


def _utf8_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
