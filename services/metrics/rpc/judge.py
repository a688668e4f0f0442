"""Serves llmlab.api.metrics.v1.JudgeService."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from llmlab.api.common.v1.usage_pb2 import Cost, TokenUsage
from llmlab.api.gateway.v1 import gateway_pb2
from llmlab.api.metrics.v1 import judge_pb2 as pb
from llmlab.api.metrics.v1.judge_pb2_grpc import JudgeServiceServicer
from services.metrics.judge.calls import JudgeCalls, JudgeModel, Reply
from services.metrics.judge.pairs import Bias, Choice, ChosenReply, Pair, PairJudgement, Winner, judge_pairs
from services.metrics.judge.rubric import Judged, Rubric, RubricJudgement, RubricVerdict, judge_by_rubric
from services.metrics.rpc.statistics import estimate_message
from services.metrics.statistics import checked_confidence
from services.runtime.context import bearer_token
from services.runtime.errors import InvalidField

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]

_SAMPLES_DEFAULT: Final = 5
_THRESHOLD_DEFAULT: Final = 0.6
_OUTPUT_TOKENS_DEFAULT: Final = 1_024
_SHOWN_CHARACTERS: Final = 4_000

_VERDICTS: Final = {
    RubricVerdict.PASS: pb.RUBRIC_VERDICT_PASS,
    RubricVerdict.FAIL: pb.RUBRIC_VERDICT_FAIL,
    RubricVerdict.UNDECIDED: pb.RUBRIC_VERDICT_UNDECIDED,
    RubricVerdict.MISSING: pb.RUBRIC_VERDICT_MISSING,
}
_WINNERS: Final = {
    Winner.A: pb.PAIR_WINNER_A,
    Winner.B: pb.PAIR_WINNER_B,
    Winner.TIE: pb.PAIR_WINNER_TIE,
    Winner.MISSING: pb.PAIR_WINNER_MISSING,
}
_CHOICES: Final = {
    Choice.FIRST: pb.PLACE_CHOICE_FIRST,
    Choice.SECOND: pb.PLACE_CHOICE_SECOND,
    Choice.TIE: pb.PLACE_CHOICE_TIE,
    None: pb.PLACE_CHOICE_UNSPECIFIED,
}
_BIASES: Final = {
    Bias.NONE: pb.JUDGE_BIAS_NONE,
    Bias.FIRST: pb.JUDGE_BIAS_FIRST,
    Bias.SECOND: pb.JUDGE_BIAS_SECOND,
}


class JudgeServicer(JudgeServiceServicer):
    """Judges answers by models."""

    def __init__(self, calls: JudgeCalls, calls_max: int) -> None:
        """`calls_max` is the most paid calls of one request."""
        self._calls = calls
        self._calls_max = calls_max

    async def JudgeByRubric(self, request: pb.JudgeByRubricRequest, context: Context) -> pb.JudgeByRubricResponse:
        """Scores answers by a rubric."""
        rubric = Rubric(
            request.rubric,
            request.threshold if request.HasField("threshold") else _THRESHOLD_DEFAULT,
            request.samples or _SAMPLES_DEFAULT,
            checked_confidence(request.confidence),
        )
        if rubric.samples == 1:
            raise InvalidField("samples", "must be 0 (for 5) or at least 2: one score has no interval")
        self._check_calls("answers", len(request.answers) * rubric.samples)
        answers = [Judged(each.answer_id, each.prompt, each.answer, each.reference) for each in request.answers]
        judged = await judge_by_rubric(self._calls, bearer_token(), _judge(request.judge), rubric, answers)
        return pb.JudgeByRubricResponse(
            judgements=[rubric_judgement(each) for each in judged],
            cost=_cost(sample.reply for each in judged for sample in each.evidence),
        )

    async def JudgePairs(self, request: pb.JudgePairsRequest, context: Context) -> pb.JudgePairsResponse:
        """Judges pairs in both orders."""
        confidence = checked_confidence(request.confidence)
        self._check_calls("pairs", 2 * len(request.pairs))
        pairs = [Pair(each.pair_id, each.prompt, each.a, each.b) for each in request.pairs]
        judge = _judge(request.judge)
        judged = await judge_pairs(self._calls, bearer_token(), judge, request.criteria, pairs, confidence)
        return pb.JudgePairsResponse(
            judgements=[_pair_judgement(each) for each in judged.pairs],
            a_score=estimate_message(judged.a_score),
            consistency_rate=estimate_message(judged.consistency),
            first_place_rate=estimate_message(judged.first_place),
            bias=_BIASES[judged.bias],
            cost=_cost(each.reply for pair in judged.pairs for each in (pair.a_first, pair.b_first)),
        )

    def _check_calls(self, field: str, calls: int) -> None:
        if calls > self._calls_max:
            message = f"would make {calls} calls, the limit is {self._calls_max} (LLMLAB_METRICS_JUDGE_MAX_CALLS)"
            raise InvalidField(field, f"{message}; send fewer at a time")


def _judge(judge: pb.JudgeModel) -> JudgeModel:
    options = gateway_pb2.Parameters(max_output_tokens=judge.max_output_tokens or _OUTPUT_TOKENS_DEFAULT)
    for name, value in judge.provider_options.items():
        options.provider_options[name].CopyFrom(value)
    return JudgeModel(
        judge.model,
        judge.temperature if judge.HasField("temperature") else None,
        judge.timeout_ms,
        dict(judge.tags),
        options.SerializeToString(),
    )


def rubric_judgement(judged: RubricJudgement, shown: int = _SHOWN_CHARACTERS) -> pb.RubricJudgement:
    """The verdict on one answer, with at most `shown` characters of each text of its evidence."""
    message = pb.RubricJudgement(
        answer_id=judged.answer_id, verdict=_VERDICTS[judged.verdict], score=estimate_message(judged.score)
    )
    for sample in judged.evidence:
        evidence = _evidence(sample.reply, sample.reasons, sample.missing_reason, shown)
        message.samples.add(score=sample.score, evidence=evidence)
    return message


def _pair_judgement(judged: PairJudgement) -> pb.PairJudgement:
    return pb.PairJudgement(
        pair_id=judged.pair_id,
        winner=_WINNERS[judged.winner],
        consistent=judged.consistent,
        a_first=_choice(judged.a_first),
        b_first=_choice(judged.b_first),
    )


def _choice(chosen: ChosenReply) -> pb.OrderedChoice:
    evidence = _evidence(chosen.reply, chosen.reasons, chosen.missing_reason)
    return pb.OrderedChoice(choice=_CHOICES[chosen.choice], evidence=evidence)


def _evidence(reply: Reply, reasons: str, missing_reason: str, shown: int = _SHOWN_CHARACTERS) -> pb.JudgeEvidence:
    return pb.JudgeEvidence(
        call_id=reply.call_id,
        reasons=reasons[:shown],
        answer=reply.text[:shown],
        missing_reason=missing_reason,
        cost=_cost([reply]),
        usage=TokenUsage(input_tokens=reply.input_tokens, output_tokens=reply.output_tokens),
    )


def _cost(replies: Iterable[Reply]) -> Cost:
    total = Cost()
    for reply in replies:
        total.cost_nano_usd += reply.cost_nano_usd
        total.unpriced_calls += reply.unpriced_calls
    return total
