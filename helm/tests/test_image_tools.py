"""The programs that images carry beside the services."""

import asyncio
import subprocess
import sys

import pytest
from chart import REPOSITORY
from grpc_health.v1 import health_pb2_grpc
from parley_core.server import Server
from parley_core.settings import ServiceSettings

pytestmark = pytest.mark.contract


PROBE = REPOSITORY / "images" / "health_probe.py"
assert health_pb2_grpc


@pytest.fixture
async def server():
    made = Server(ServiceSettings(), name="test")
    await made.start()
    yield made
    await made.stop()


async def probe(*arguments):
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(PROBE), *arguments, stderr=subprocess.PIPE
    )
    _, said = await process.communicate()
    return process.returncode, said.decode()


async def test_the_probe_follows_health(server):
    port = str(server.port)
    assert (await probe(port))[0] == 1
    assert (await probe(port, "--alive"))[0] == 0
    await server.set_serving()
    assert (await probe(port))[0] == 0


async def test_nobody_there_is_neither_serving_nor_alive():
    status, said = await probe("1", "--alive")
    assert status == 1
    assert "UNAVAILABLE" in said


@pytest.fixture
def certificates(tmp_path):
    """A CA, and a certificate of it for parley-tts, as cert-manager lays them out."""
    for command in (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=ca"
        " -keyout ca.key -out ca.crt",
        "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=parley-tts"
        " -addext subjectAltName=DNS:parley-tts -keyout tls.key -out tls.csr",
        "openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 1"
        " -copy_extensions copy -out tls.crt",
    ):
        subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


@pytest.fixture
def ended(certificates):
    """The same, a day past its end."""
    command = (
        "openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -days -1 -copy_extensions copy"
        " -out tls.crt"
    )
    subprocess.run(command.split(), cwd=certificates, check=True, capture_output=True)
    return certificates


async def test_a_certificate_that_has_ended_is_not_ready_and_yet_alive(ended, render):
    """Its conversations go on; a restart would cut them off and find the same certificate."""
    (container,) = render(values={"tls": {"mode": "secrets"}}).service_pod("tts")["spec"][
        "containers"
    ]
    settings = ServiceSettings(tls={"cert_file": ended / "tls.crt", "key_file": ended / "tls.key"})
    secured = Server(settings, name="test")
    await secured.start()
    await secured.set_serving()
    try:
        for kind, expected in (("readinessProbe", 1), ("livenessProbe", 0)):
            command = container[kind]["exec"]["command"][3:]
            here = [each.replace("/etc/parley/tls", str(ended)) for each in command]
            status, said = await probe(str(secured.port), *here)
            assert (status, "certificate has expired" in said) == (expected, True), kind
    finally:
        await secured.stop()


@pytest.mark.parametrize("rubbish", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
async def test_who_hangs_up_or_speaks_no_tls_is_not_alive(certificates, rubbish):
    async def answer(_, writer):
        writer.write(rubbish)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as other:
        port = str(other.sockets[0].getsockname()[1])
        status, said = await probe(port, "--ca", str(certificates / "ca.crt"), "--alive")
    assert (status, "UNAVAILABLE" in said) == (1, True), said


async def test_certificates_that_cannot_be_read_do_not_make_a_server_alive(server, tmp_path):
    (tmp_path / "ca.crt").write_text("half wri")
    status, said = await probe(str(server.port), "--ca", str(tmp_path / "ca.crt"), "--alive")
    assert (status, "UNAVAILABLE" in said) == (1, True), said


async def test_the_probe_as_the_chart_calls_it_passes_mutual_tls(certificates, render):
    rendered = render(values={"tls": {"mode": "secrets"}})
    (container,) = rendered.service_pod("tts")["spec"]["containers"]
    command = container["readinessProbe"]["exec"]["command"][3:]
    here = [each.replace("/etc/parley/tls", str(certificates)) for each in command]
    settings = ServiceSettings(
        tls={
            "cert_file": certificates / "tls.crt",
            "key_file": certificates / "tls.key",
            "client_ca_file": certificates / "ca.crt",
        }
    )
    secured = Server(settings, name="test")
    await secured.start()
    await secured.set_serving()
    try:
        assert await probe(str(secured.port), *here) == (0, "")
        anonymous = [each for each in here if not each.startswith(("--cert", "--key"))]
        assert (await probe(str(secured.port), *anonymous))[0] == 1
    finally:
        await secured.stop()
