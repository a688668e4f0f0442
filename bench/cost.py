"""The cost service: durable ingest, holds and settlements, summaries; on PostgreSQL, with SQLite's figures beside.

    make -s bench NAME=cost
    python -m bench.cost [--only cost_holds] [--events 1000000]

Each subject is a module that runs by itself as `python -m bench.<subject> --database postgresql|sqlite` and ends with
one JSON object of figures. The last line of output merges them: PostgreSQL's at the top, SQLite's under "sqlite".
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.environment import environment

ROOT = Path(__file__).resolve().parent.parent
SUBJECTS = ("cost_holds", "cost_ingest", "cost_summaries")


def figures(subject: str, database: str, events: int) -> dict[str, Any]:
    """Runs one subject in a fresh process, so that neither memory nor caches of another are measured."""
    command = [sys.executable, "-m", f"bench.{subject}", "--database", database]
    if subject == "cost_summaries" and database == "postgresql" and events:
        command += ["--events", str(events)]
    print(f"{subject} on {database} ...", file=sys.stderr, flush=True)
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)  # noqa: S603 - ourselves
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measures and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=SUBJECTS, action="append", help="run this subject alone; may be repeated")
    parser.add_argument(
        "--events", type=int, default=0, help="events that are summed on PostgreSQL, instead of 10 million"
    )
    chosen = parser.parse_args()
    subjects = chosen.only or SUBJECTS
    of_database: dict[str, dict[str, Any]] = {"postgresql": {}, "sqlite": {}}
    for subject in subjects:
        for database, merged in of_database.items():
            for name, figure in figures(subject, database, chosen.events).items():
                # Each subject counts what it did, so that a shortcut shows.
                merged[name] = {**merged.get(name, {}), **figure} if isinstance(figure, dict) else figure
    result = {**of_database["postgresql"], "sqlite": of_database["sqlite"]}
    print(json.dumps({"benchmark": "cost", **environment(), **result}))


if __name__ == "__main__":
    main()
