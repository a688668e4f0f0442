"""Keys of providers: in a variable, or in a file that a variable names, as Kubernetes and Docker mount secrets.

OPENAI_API_KEY holds a key, OPENAI_API_KEY_FILE the path of a file with one. A file is looked at again every few
seconds, so that a key is changed without a restart. Keys are in no log, no message and no representation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from services.gateway.catalogue_file import CatalogueError

FILE_SUFFIX = "_FILE"
KEY_FILE_MAX_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class ProviderKey:
    """A key, and the variable that gave it. `file` None: the variable itself holds it."""

    value: str = field(default="", repr=False)
    variable: str = ""
    file: Path | None = None


def find_key(variables: Sequence[str], environ: Mapping[str, str]) -> ProviderKey:
    """The key under the first of these variables that is set, itself or as a file; an empty one where none is.

    Raises CatalogueError for a file that cannot be read and for a key that no header can carry.
    """
    for name in variables:
        if key := environ.get(name, "").strip():
            return ProviderKey(_checked(key, name), name)
        if path := environ.get(name + FILE_SUFFIX, ""):
            return _in_file(Path(path).expanduser(), name + FILE_SUFFIX)
    return ProviderKey()


def _in_file(file: Path, variable: str) -> ProviderKey:
    try:
        with file.open("rb") as opened:
            data = opened.read(KEY_FILE_MAX_BYTES + 1)
    except OSError as error:
        raise CatalogueError(f"{variable}: {file}: {error.strerror or type(error).__name__}") from error
    if len(data) > KEY_FILE_MAX_BYTES:
        raise CatalogueError(f"{variable}: {file} is larger than {KEY_FILE_MAX_BYTES} bytes, so it is no key")
    return ProviderKey(_checked(data.decode("ascii", errors="replace").strip(), variable), variable, file)


def _checked(key: str, variable: str) -> str:
    if key.isascii() and key.isprintable():
        return key
    raise CatalogueError(f"{variable}: the key has characters that no header can carry; is it more than one line?")
