"""Which option of a command stands behind a field of a request, for errors that name fields."""

from __future__ import annotations

import re

_INDEX = re.compile(r"\[[^\]]*\]")
_SCOPE = {
    "user_id": "--user",
    "key_id": "--key",
    "run_id": "--run",
    "tag": "--tag",
    "model": "--model",
    "provider": "--model",
}
_SCOPES = ("scope", "budget.scope", "filter", "question.filter")
_OPTIONS = {
    **{f"{scope}.{field}": option for scope in _SCOPES for field, option in _SCOPE.items()},
    "after_sequence": "--after",
    "budget.limit_nano_usd": "--limit",
    "budget.name": "--name",
    "budget.thresholds_percent": "--threshold",
    "budget.time_zone": "--time-zone",
    "budget_id": "BUDGET",
    "call.model": "--model",
    "compare": "--compare",
    "filter.end_time": "--days",
    "filter.models": "--model",
    "filter.start_time": "--days",
    "group_by": "--by",
    "items.expected_output_tokens": "--expected-output-tokens",
    "items.model": "MODEL",
    "items.service_tier": "--tier",
    "level_percent": "--level",
    "model": "MODEL",
    "name_contains": "--contains",
    "override.effective_from": "--from",
    "override.model": "MODEL",
    "override.service_tier": "--tier",
    "override_id": "OVERRIDE",
    "period": "--period",
    "provider": "--provider",
    "question.group_by": "--by",
    "question.period": "--period",
    "question.rolling": "--last",
    "question.time_zone": "--time-zone",
    "repricing_id": "REPRICING",
    "rolling": "--last",
    "service_tier": "--tier",
    "tag_share": "--split",
    "time_zone": "--time-zone",
    "webhook.budget_ids": "--budget",
    "webhook.kinds": "--kind",
    "webhook.url": "URL",
    "webhook_id": "WEBHOOK",
}


def option_of(field: str) -> str:
    """Returns the option, or the argument, that a person typed for a field; the field itself where there is none.

    >>> option_of("budget.thresholds_percent[2]")
    '--threshold'
    """
    return _OPTIONS.get(_INDEX.sub("", field), field)
