"""What is said of answers that were judged in pairs."""

from llmlab.api.metrics.v1 import judge_pb2
from llmlab.api.metrics.v1.statistics_pb2 import Estimate
from llmlab.cli.judge_command import explanations


def score_line(score: Estimate) -> str:
    return explanations(judge_pb2.JudgePairsResponse(a_score=score))[0]


def test_a_score_is_told_as_far_as_it_is_there() -> None:
    begin = "Score of A, a tie counting half: "
    assert score_line(Estimate()) == begin + "too few pairs to tell."
    assert score_line(Estimate(value=1.0)) == begin + "1.00; too few pairs to tell."
    assert score_line(Estimate(value=0.75, low=0.6, high=0.9)) == begin + "0.75 (0.60-0.90); A is better."
