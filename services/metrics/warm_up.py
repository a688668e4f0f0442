"""What a worker loads before its first task, so that no caller waits for it."""

from services.metrics.intervals import normal_quantile
from services.metrics.scoring import score_samples


def warm_up() -> None:
    """Loads scipy, the stemmer and the tables by using each once."""
    normal_quantile(0.975)
    score_samples((), [("A short answer.", "A prompt.", (), "STOP")])
