"""Sentiment of the sentence around a mention.

C. J. Hutto, E. Gilbert, "VADER: A parsimonious rule-based model for sentiment analysis of social media text", ICWSM
2014; its lexicon is English.
"""

from __future__ import annotations

from functools import cache
from typing import Any

# Imported where it is used: its lexicon takes longer to load than the rest of the service.


@cache
def _analyzer() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


def sentiment_of(sentence: str) -> float:
    """VADER's compound score of an English sentence, -1 to 1."""
    return float(_analyzer().polarity_scores(sentence)["compound"])
