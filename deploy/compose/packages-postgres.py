#!/usr/bin/env python3
"""Makes the database that POSTGRES_USER, _PASSWORD and _DB name where there is none, and becomes PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

DATA = Path("/var/lib/postgresql/data")


def main() -> None:
    """Arguments are PostgreSQL's own."""
    (programs,) = Path("/usr/lib/postgresql").glob("*/bin")
    if not (DATA / "PG_VERSION").exists():
        password = Path("/tmp/password")  # noqa: S108 (in a container of its own)
        password.write_text(os.environ["POSTGRES_PASSWORD"])
        user = os.environ["POSTGRES_USER"]
        command = [str(programs / "initdb"), "-D", str(DATA), "-U", user, f"--pwfile={password}", "-A", "scram-sha-256"]
        subprocess.run([*command, "-E", "UTF8", "--locale=C.UTF-8"], check=True)  # noqa: S603 (our own command)
        password.unlink()
        statement = f'CREATE DATABASE "{os.environ["POSTGRES_DB"]}";\n'
        single = [str(programs / "postgres"), "--single", "-D", str(DATA), "postgres"]
        subprocess.run(single, input=statement, text=True, check=True)  # noqa: S603 (likewise)
    server = str(programs / "postgres")
    os.execv(server, [server, "-D", str(DATA), *sys.argv[1:]])  # noqa: S606 (likewise)


if __name__ == "__main__":
    main()
