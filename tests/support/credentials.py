"""Credentials as metadata of a call."""

Metadata = tuple[tuple[str, str], ...]


def bearer(token: str) -> Metadata:
    """The metadata that carries an access token."""
    return (("authorization", f"Bearer {token}"),)
