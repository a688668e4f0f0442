"""The metrics service: scores of answers, and statistics with honest intervals. Stateless; calls nobody."""
