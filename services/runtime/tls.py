"""TLS by the settings, with certificates that may be replaced while the process runs.

The files are looked at again when a connection is made: a server's next handshake, and a channel's next call, use what
is there then. Connections that exist go on as they are; `max_connection_age_s` bounds how long.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from services.runtime.settings import ServiceSettings, SettingsError

_log = logging.getLogger(__name__)

LOOK_AGAIN_S = 1.0
"""Channels look for new files at most so often; a server does at every handshake."""


@dataclass(frozen=True, slots=True)
class Pems:
    """What the files hold, in PEM; None where a setting names no file."""

    certificate: bytes | None
    key: bytes | None
    ca: bytes | None


class TlsFiles:
    """The files that tls_certificate, tls_key and tls_ca name. Raises SettingsError where they are of no use."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._seen = self._signature()
        self._pems = self._read()

    def current(self) -> Pems:
        """What the files hold now; what they held before, where they are gone, malformed or do not fit together."""
        with self._lock:
            try:
                seen = self._signature()
                if seen != self._seen:
                    self._seen = seen
                    self._pems = self._read()
                    _log.info("read TLS certificates again: %s", self._settings.tls_certificate)
            except SettingsError as error:
                _log.warning("TLS certificates stay as they were: %s", error)
            return self._pems

    def _read(self) -> Pems:
        paired = self._settings.tls_certificate is not None or self._settings.tls_key is not None
        pems = Pems(
            key=self._read_one("tls_key") if paired else None,
            certificate=self._read_one("tls_certificate") if paired else None,
            ca=self._read_one("tls_ca") if self._settings.tls_ca is not None else None,
        )
        self._check(pems)
        return pems

    def _read_one(self, field: str) -> bytes:
        path: Path | None = getattr(self._settings, field)
        if path is None:
            variable = self._settings.variable(field)
            raise SettingsError(f"{variable}: is not set; tls_certificate and tls_key go together")
        try:
            return path.expanduser().read_bytes()
        except OSError as error:
            raise SettingsError(f"{self._settings.variable(field)}: {path} cannot be read: {error.strerror}") from None

    def _check(self, pems: Pems) -> None:
        """Two files are never replaced at the same instant: a key and a certificate of two pairs are refused."""
        field = "tls_certificate"
        try:
            if pems.certificate is not None and pems.key is not None:
                certified = x509.load_pem_x509_certificate(pems.certificate).public_key()
                field = "tls_key"
                if load_pem_private_key(pems.key, password=None).public_key() != certified:
                    raise SettingsError(f"{self._settings.variable(field)}: is not the key of tls_certificate")
            field = "tls_ca"
            if pems.ca is not None:
                x509.load_pem_x509_certificates(pems.ca)
        except (ValueError, TypeError):
            raise SettingsError(f"{self._settings.variable(field)}: its file holds no PEM of the kind") from None

    def _signature(self) -> tuple[object, ...]:
        """What changes when a file is replaced, also behind the symbolic links of a Kubernetes volume."""
        signature: list[object] = []
        for field in ("tls_certificate", "tls_key", "tls_ca"):
            path: Path | None = getattr(self._settings, field)
            try:
                found = path.expanduser().stat() if path is not None else None
            except OSError:
                found = None
            signature.append(found and (found.st_mtime_ns, found.st_ino, found.st_size))
        return tuple(signature)


def server_credentials(settings: ServiceSettings) -> grpc.ServerCredentials | None:
    """TLS where a certificate is set; mutual TLS where the roots of clients are set too. Raises SettingsError."""
    if settings.tls_certificate is None and settings.tls_key is None:
        return None
    files = TlsFiles(settings)
    used = files.current()

    def latest() -> grpc.ServerCertificateConfiguration:
        # Asked at every handshake, in a thread of gRPC's.
        return _configuration(files.current())

    return grpc.dynamic_ssl_server_credentials(
        _configuration(used), latest, require_client_authentication=used.ca is not None
    )


def _configuration(pems: Pems) -> grpc.ServerCertificateConfiguration:
    if pems.key is None or pems.certificate is None:
        raise AssertionError("a server's files always hold a pair")
    return grpc.ssl_server_certificate_configuration([(pems.key, pems.certificate)], root_certificates=pems.ca)


class ChannelCertificates:
    """What a channel shows and trusts, and when that has changed. Raises SettingsError."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._files = TlsFiles(settings)
        self._pems = self._files.current()
        self._look_at_s = monotonic() + LOOK_AGAIN_S

    @property
    def credentials(self) -> grpc.ChannelCredentials:
        """Of the files as they were read last."""
        return grpc.ssl_channel_credentials(
            root_certificates=self._pems.ca,
            private_key=self._pems.key,
            certificate_chain=self._pems.certificate,
        )

    def changed(self) -> bool:
        """Whether the files have changed since the last call of this method; looks at most once in LOOK_AGAIN_S."""
        now_s = monotonic()
        if now_s < self._look_at_s:
            return False
        self._look_at_s = now_s + LOOK_AGAIN_S
        found = self._files.current()
        if found is self._pems:
            return False
        self._pems = found
        return True
