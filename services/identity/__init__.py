"""Identity: accounts, projects, API keys, and the tokens that every other service verifies by itself."""
