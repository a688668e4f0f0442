"""Certificates for mutual TLS between the services, by an authority of one's own: for local use and for trying it out.

    python -m tools.certs [--directory certs] [--days 90] [--names gateway,cost]

It makes ca.pem and ca-key.pem once, and <name>.pem and <name>-key.pem anew each time, for each service and "client".
Run again, it renews them: the services read them again by themselves.
"""

from __future__ import annotations

import argparse
import datetime as dt
import ipaddress
import os
import sys
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from services.runtime.settings import DEFAULT_PORTS

NAMES = (*DEFAULT_PORTS, "worker", "client")
DAYS = 90
CA_DAYS = 3650
NAMESPACE = "llmlab"

Authority = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def make_certificates(directory: Path, names: tuple[str, ...] = NAMES, days: int = DAYS) -> None:
    """Write the authority where there is none, and a new certificate of each name, valid for `days`."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = _authority(directory)
    for name in names:
        certificate, key = _issue(authority, name, days)
        # The key first: who reads between the two finds a pair that does not match, and keeps the one that it has.
        _write(directory / f"{name}-key.pem", _key_pem(key))
        _write(directory / f"{name}.pem", certificate.public_bytes(Encoding.PEM))


def _authority(directory: Path) -> Authority:
    certificate_file, key_file = directory / "ca.pem", directory / "ca-key.pem"
    if certificate_file.exists() and key_file.exists():
        key = load_pem_private_key(key_file.read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise SystemExit(f"{key_file} is not the key that this command made; choose another --directory")
        return x509.load_pem_x509_certificate(certificate_file.read_bytes()), key
    key = ec.generate_private_key(ec.SECP256R1())
    # A number in its name tells it from an authority that was made before.
    name = _name(f"llmlab authority {x509.random_serial_number() % 10**8:08}")
    certificate = (
        _unsigned(name, name, key.public_key(), CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(key_file, _key_pem(key))
    _write(certificate_file, certificate.public_bytes(Encoding.PEM))
    return certificate, key


def _issue(authority: Authority, name: str, days: int) -> Authority:
    """A certificate for a service's names in compose, in Kubernetes and on this machine, as server and as client."""
    issuer, issuer_key = authority
    key = ec.generate_private_key(ec.SECP256R1())
    hosts = [name, f"{name}s", f"{name}.{NAMESPACE}", f"{name}.{NAMESPACE}.svc.cluster.local", "localhost"]
    alternatives: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts]
    alternatives.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = (
        _unsigned(_name(name), issuer.subject, key.public_key(), days)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    return certificate, key


def _unsigned(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        # Clocks differ a little.
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=days))
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, content: bytes) -> None:
    """At once or not at all, readable by its owner only."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)  # of mode 0600
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    Path(temporary).replace(path)


def main() -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.certs", description="Certificates for the services.")
    parser.add_argument("--directory", type=Path, default=Path("certs"))
    parser.add_argument("--days", type=int, default=DAYS)
    parser.add_argument("--names", type=lambda text: tuple(text.split(",")), default=NAMES)
    parsed = parser.parse_args()
    make_certificates(parsed.directory, parsed.names, parsed.days)
    print(f"wrote certificates of {', '.join(parsed.names)} to {parsed.directory}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
