"""Fixtures for the provider: an Airflow home of its own, connections, certificates, misbehaving servers."""

from __future__ import annotations

import datetime
import ipaddress
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from cryptography import x509
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.client.scripted_jobs import ScriptedJobs
from tests.conftest import Serve, ServerProcess

from remsvc_proto import RemSvc_pb2 as pb2

# Airflow reads its settings when it is imported, which test modules do.
_HOME = tempfile.mkdtemp(prefix="remsvc-airflow-")
os.environ["AIRFLOW_HOME"] = _HOME
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(Path(_HOME) / "dags")
os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{_HOME}/airflow.db"
os.environ["AIRFLOW__CORE__FERNET_KEY"] = Fernet.generate_key().decode()


from triggering import supervisor  # noqa: E402


def pytest_unconfigure() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Define the connection ``remsvc_test`` as a URI or JSON, and give its id."""

    def define(value: str) -> str:
        monkeypatch.setenv("AIRFLOW_CONN_REMSVC_TEST", value)
        return "remsvc_test"

    return define


Handler = Callable[[Iterator[Any], grpc.ServicerContext], Iterator[Any]]


@dataclass
class ScriptedServer:
    """A server whose streams do what a test says."""

    target: str
    metadata: list[dict[str, str]] = field(default_factory=list)
    commands: list[Any] = field(default_factory=list)
    calls: int = 0
    ended: threading.Event = field(default_factory=threading.Event)
    """Set when a call has ended, by whichever side."""


class _Scripted:
    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.server = ScriptedServer("")

    def RemCmdStrm(self, request_iterator: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        self.server.calls += 1
        self.server.metadata.append({key: str(value) for key, value in context.invocation_metadata()})
        context.add_callback(self.server.ended.set)

        def requests() -> Iterator[Any]:
            for request in request_iterator:
                self.server.commands.append(request)
                yield request

        yield from self.handler(requests(), context)


def _handlers(servicer: _Scripted) -> grpc.GenericRpcHandler:
    stream = grpc.stream_stream_rpc_method_handler(
        servicer.RemCmdStrm,
        pb2.RemCmdMsg.FromString,
        lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
    )
    return grpc.method_handlers_generic_handler("RS.RemSvc", {"RemCmdStrm": stream})


@pytest.fixture
def scripted() -> Iterator[Callable[..., ScriptedServer]]:
    """Start a real gRPC server with a handler for ``RemCmdStrm``."""
    servers: list[grpc.Server] = []

    def start(handler: Handler, port: int = 0) -> ScriptedServer:
        servicer = _Scripted(handler)
        server = grpc.server(ThreadPoolExecutor(8))
        server.add_generic_rpc_handlers((_handlers(servicer),))
        port = server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        servers.append(server)
        servicer.server.target = f"127.0.0.1:{port}"
        return servicer.server

    yield start
    for server in servers:
        server.stop(0).wait(30)


@dataclass(frozen=True)
class Identity:
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Certificates:
    """An authority, and what it signed for 127.0.0.1."""

    ca: Path
    server: Identity
    client: Identity


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates made for this run."""
    directory = tmp_path_factory.mktemp("certificates")
    now = datetime.datetime.now(datetime.timezone.utc)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    ca_key = ec.generate_private_key(ec.SECP256R1())

    def certificate(subject: x509.Name, key: ec.EllipticCurvePrivateKey, *extensions: Any) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def issue(who: str) -> Identity:
        key = ec.generate_private_key(ec.SECP256R1())
        identity = Identity(directory / f"{who}.pem", directory / f"{who}.key")
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, who)])
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        identity.certificate.write_bytes(certificate(subject, key, address))
        identity.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return identity

    ca = directory / "ca.pem"
    ca.write_bytes(certificate(name, ca_key, x509.BasicConstraints(ca=True, path_length=None)))
    return Certificates(ca, issue("server"), issue("client"))


def answer(request: Any, rc: int = 0, out: str = "", err: str = "", **changes: Any) -> Any:
    """The answer to a request."""
    return pb2.RemResMsg(
        **{"rc": rc, "tid": request.tid, "out": out, "err": err, "hsh": request.hsh, **changes}
    )


T = TypeVar("T")


def in_a_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Call what uses ``asyncio.run()``: in the main thread, the loop is pytest-asyncio's."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


def run_python(*arguments: str) -> str:
    """Run a fresh interpreter, and give what it printed."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def scripted_jobs() -> Iterator[ScriptedJobs]:
    """A real gRPC server with durable jobs that do what a test says."""
    server = ScriptedJobs()
    yield server
    server.close()


@pytest.fixture(scope="module")
def job_server(serve_module: Serve) -> ServerProcess:
    """A server with durable jobs, shared by the tests of a module."""
    return serve_module("[jobs]\nkill_grace_ms = 1000\n")


@pytest.fixture
def conn_id(job_server: ServerProcess, connect: Callable[[str], str]) -> str:
    """The connection to it."""
    return connect(f"remsvc://{job_server.target}")


__all__ = ["supervisor"]
