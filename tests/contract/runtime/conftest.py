"""The mechanism under the services is tested on databases that nothing was migrated on."""

import pytest


@pytest.fixture
def database_url(fresh_database_url: str) -> str:
    return fresh_database_url
