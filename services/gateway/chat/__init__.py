"""Conversations that are kept: sessions, turns, and the way of a turn from its question to whoever follows it."""
