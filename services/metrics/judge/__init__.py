"""Models that judge answers: what they are asked, and what their verdicts are worth."""
