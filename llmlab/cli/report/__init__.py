"""The report of a run: one HTML file that needs nothing else, and in which nothing that a model wrote can act."""
