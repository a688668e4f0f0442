"""A pytest session for the tests of the test servers, run by its name: it has a database and waits."""

import sys


def test_waits_with_a_database(postgresql_url: str) -> None:
    sys.stdout.write(f"READY {postgresql_url}\n")
    sys.stdout.flush()
    sys.stdin.read()
