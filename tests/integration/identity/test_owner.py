"""The first account of an installation on servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.support.processes import TESTS


def test_the_owner_gets_a_key_and_each_new_one_ends_those_before(postgresql_url: str) -> None:
    environ = {**os.environ, "LLMLAB_DATABASE_URL": postgresql_url}
    command = [sys.executable, "-m", "services.runtime.launch", "owner"]
    printed = [
        subprocess.run(command, cwd=TESTS.parent, env=environ, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    first, second = (json.loads(text) for text in printed)
    assert first.keys() == {"api_key", "project_id", "user_id"}
    assert first["project_id"] == second["project_id"]
    assert first["api_key"] != second["api_key"]
