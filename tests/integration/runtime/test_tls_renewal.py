"""Certificates that are replaced while servers and channels use them."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from llmlab.client import SERVICES, Client, Endpoints, NetworkError, Tls
from services.runtime import tls
from services.runtime.settings import SettingsError
from tests.support.echo import Echo, EchoServicer, echo_settings, request, running_echo
from tools.certs import make_certificates

NAME = "echo"
CALLERS = 8
CALLS_BETWEEN = 40


@pytest.fixture(autouse=True)
def looks_at_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "LOOK_AGAIN_S", 0.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Certificates of this test's own."""
    make_certificates(tmp_path / "certs", (NAME,))
    return tmp_path / "certs"


def mutual_tls(folder: Path) -> dict[str, Any]:
    """The settings."""
    certificate, key = folder / f"{NAME}.pem", folder / f"{NAME}-key.pem"
    return {"tls_certificate": certificate, "tls_key": key, "tls_ca": folder / "ca.pem"}


async def presented(port: int, folder: Path) -> int:
    """The serial number of the certificate that the server shows in a new handshake."""
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    context.load_cert_chain(folder / f"{NAME}.pem", folder / f"{NAME}-key.pem")
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(shown).serial_number


def serial_in(folder: Path) -> int:
    return x509.load_pem_x509_certificate((folder / f"{NAME}.pem").read_bytes()).serial_number


class Load:
    """Callers that call without a pause; a call that fails ends them with its error. Nothing here is retried."""

    def __init__(self, echo: Echo) -> None:
        self._echo = echo
        self._stopping = False
        self.calls = 0
        self._tasks = [asyncio.create_task(self._call()) for _ in range(CALLERS)]

    async def _call(self) -> None:
        metadata = self._echo.metadata()
        while not self._stopping:
            answer = await self._echo.stub.Echo(request(), metadata=metadata)
            assert answer.text == request().text
            self.calls += 1

    async def further(self, calls: int) -> None:
        """Waits until that many more calls have been answered."""
        target = self.calls + calls
        while self.calls < target:
            done, _ = await asyncio.wait(self._tasks, timeout=0.01)
            assert not done, done

    async def stop(self) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)


async def test_certificates_replaced_under_load_fail_no_call(folder: Path, tmp_path: Path) -> None:
    proceed = asyncio.Event()

    async def stream(_: Any) -> AsyncIterator[str]:
        yield "before"
        await proceed.wait()
        yield "after"

    async with running_echo(EchoServicer(stream=stream), **mutual_tls(folder)) as echo:
        streaming = echo.stub.Count(request(), metadata=echo.metadata())
        assert (await streaming.read()).text == "before"
        load = Load(echo)
        serials = {await presented(echo.server.port, folder)}
        for _ in range(3):
            make_certificates(folder, (NAME,))
            await load.further(CALLS_BETWEEN)
            assert await presented(echo.server.port, folder) == serial_in(folder)
            serials.add(serial_in(folder))
        # Another authority: both are trusted, then only the new one signs, then the old one is forgotten.
        make_certificates(tmp_path / "other", (NAME,))
        other = {path.name: path.read_bytes() for path in (tmp_path / "other").iterdir()}
        (folder / "ca.pem").write_bytes((folder / "ca.pem").read_bytes() + other["ca.pem"])
        await load.further(CALLS_BETWEEN)
        for name in (f"{NAME}-key.pem", f"{NAME}.pem"):
            (folder / name).write_bytes(other[name])
        await load.further(CALLS_BETWEEN)
        (folder / "ca.pem").write_bytes(other["ca.pem"])
        await load.further(CALLS_BETWEEN)
        assert await presented(echo.server.port, folder) == serial_in(folder)
        serials.add(serial_in(folder))
        await load.stop()
        # What began on the first connection ends there.
        proceed.set()
        assert (await streaming.read()).text == "after"
    assert len(serials) == 5


async def test_files_that_do_not_fit_leave_all_as_it_was(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running_echo(**mutual_tls(folder)) as echo:
        before = await presented(echo.server.port, folder)
        wrong = {
            f"{NAME}.pem": b"no certificate",
            f"{NAME}-key.pem": (folder / "ca-key.pem").read_bytes(),
            "ca.pem": b"nothing of the kind",
        }
        for name, content in wrong.items():
            right = (folder / name).read_bytes()
            (folder / name).write_bytes(content)
            with caplog.at_level(logging.WARNING):
                await echo.stub.Echo(request(), metadata=echo.metadata())
            assert "TLS certificates stay as they were" in caplog.text
            caplog.clear()
            (folder / name).write_bytes(right)
        assert await presented(echo.server.port, folder) == before


def test_a_key_of_another_certificate_is_refused_at_the_start(folder: Path) -> None:
    settings = {**mutual_tls(folder), "tls_key": folder / "ca-key.pem"}
    with pytest.raises(SettingsError, match=r"^LLMLAB_ECHO_TLS_KEY: is not the key of tls_certificate"):
        tls.TlsFiles(echo_settings(**settings))


def test_the_same_authority_signs_again(tmp_path: Path) -> None:
    make_certificates(tmp_path, ("gateway",), days=7)
    authority = (tmp_path / "ca.pem").read_bytes()
    first = (tmp_path / "gateway.pem").read_bytes()
    make_certificates(tmp_path, ("gateway",), days=7)
    assert (tmp_path / "ca.pem").read_bytes() == authority
    assert (tmp_path / "gateway.pem").read_bytes() != first
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    certificate = x509.load_pem_x509_certificate(first)
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "gateway.llmlab.svc.cluster.local" in names.get_values_for_type(x509.DNSName)


async def test_the_client_of_people_shows_its_certificate(folder: Path) -> None:
    async with running_echo(**mutual_tls(folder)) as echo:
        endpoints = Endpoints(**dict.fromkeys(SERVICES, echo.server.address))
        variables = {f"LLMLAB_{name.upper()}": str(path) for name, path in mutual_tls(folder).items()}
        async with Client(endpoints, tls=Tls.from_environment(variables)) as client:
            assert await client.health("gateway") == "SERVING"
        stranger = Tls.from_environment({"LLMLAB_TLS_CA": variables["LLMLAB_TLS_CA"]})
        async with Client(endpoints, tls=stranger) as client:
            with pytest.raises(NetworkError):
                await client.health("gateway")
    assert Tls.from_environment({}) is None
