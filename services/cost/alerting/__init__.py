"""Alerts on spending, and their way to webhooks."""
