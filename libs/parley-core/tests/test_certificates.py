"""Certificates that are renewed under a running service."""

import asyncio
import shutil
import ssl

import pytest
from cryptography import x509
from parley.tokenizer.v1 import tokenizer_pb2 as pb
from parley.tokenizer.v1 import tokenizer_pb2_grpc as rpc
from parley_core.certificates import CertificateError, CertificateFiles
from parley_core.clients import connect
from parley_core.server import Server
from parley_core.settings import (
    ClientSettings,
    ClientTlsSettings,
    ServerTlsSettings,
    ServiceSettings,
)
from parley_core.telemetry import CERTIFICATE_NOT_AFTER
from parley_core.testing import serving
from tls_authority import Authority

pytestmark = pytest.mark.contract

SERVICE = pb.DESCRIPTOR.services_by_name["TokenizerService"].full_name


@pytest.fixture
def ends(tmp_path):
    """Two authorities, and one folder for each end of TLS that is filled from either."""

    class Ends:
        def __init__(self):
            self.old, self.new = (Authority(_made(tmp_path / name)) for name in ("old", "new"))
            self.folders = {name: _made(tmp_path / name) for name in ("server", "client")}

        def fill(self, end, authority, hours=1):
            issued = authority.issue(end, hours=hours)
            for name, source in (("ca", authority.ca_file), *issued.items()):
                part = self.folders[end] / f"{name}.part"
                shutil.copyfile(source, part)
                part.replace(self.folders[end] / name)

        def tls(self, end):
            folder = self.folders[end]
            return {"cert_file": folder / "cert_file", "key_file": folder / "key_file"}

    made = Ends()
    for end in made.folders:
        made.fill(end, made.old)
    return made


def _made(folder):
    folder.mkdir()
    return folder


@pytest.fixture
async def server(ends, servicer):
    tls = ServerTlsSettings(**ends.tls("server"), client_ca_file=ends.folders["server"] / "ca")
    made = Server(ServiceSettings(tls=tls), name="test")
    made.add(rpc.add_TokenizerServiceServicer_to_server, servicer, SERVICE)
    async with serving(made):
        yield made


def channel_to(server, ends):
    tls = ClientTlsSettings(**ends.tls("client"), ca_file=ends.folders["client"] / "ca")
    return connect(ClientSettings(address=f"127.0.0.1:{server.port}", tls=tls))


async def certificate_of(server):
    """What a new connection is shown."""
    text = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", server.port))
    return x509.load_pem_x509_certificate(text.encode())


async def test_both_ends_move_to_another_authority_and_no_call_is_lost(server, ends, servicer):
    async with channel_to(server, ends) as channel:
        stub = rpc.TokenizerServiceStub(channel)
        await stub.Tokenize(pb.TokenizeRequest())
        stream = stub.StreamingTokenize()
        await stream.write(pb.StreamingTokenizeRequest(flush=pb.Flush(flush_id="before")))
        assert (await stream.read()).flushed.flush_id == "before"
        # Nothing of the old authority is valid for new connections from here on.
        ends.fill("server", ends.new)
        ends.fill("client", ends.new)
        await stub.Tokenize(pb.TokenizeRequest(), wait_for_ready=True, timeout=5)
        # The call from before goes on over its own connection.
        await stream.write(pb.StreamingTokenizeRequest(flush=pb.Flush(flush_id="after")))
        assert (await stream.read()).flushed.flush_id == "after"
        servicer.release.set()
        await stream.done_writing()
        assert await stream.code() is not None
        await stub.Tokenize(pb.TokenizeRequest(), timeout=5)


async def test_the_metric_tells_when_the_certificate_served_ends(server, ends):
    assert CERTIFICATE_NOT_AFTER._value.get() == pytest.approx(
        (await certificate_of(server)).not_valid_after_utc.timestamp(), abs=1
    )
    ends.fill("server", ends.old, hours=48)
    renewed = await certificate_of(server)
    assert CERTIFICATE_NOT_AFTER._value.get() == renewed.not_valid_after_utc.timestamp()


async def test_closing_ends_calls_on_connections_of_old_certificates_too(server, ends, servicer):
    channel = channel_to(server, ends)
    stub = rpc.TokenizerServiceStub(channel)
    stream = stub.StreamingTokenize()
    await stream.write(pb.StreamingTokenizeRequest(flush=pb.Flush(flush_id="a")))
    await stream.read()
    ends.fill("client", ends.old)
    await stub.Tokenize(pb.TokenizeRequest(), wait_for_ready=True, timeout=5)
    await channel.close()
    async with asyncio.timeout(5):
        await servicer.ended.wait()


def files(ends):
    folder = ends.folders["server"]
    return CertificateFiles(folder / "cert_file", folder / "key_file", folder / "ca")


def test_unchanged_files_are_not_news(ends):
    found = files(ends)
    assert found.renewed() is None
    ends.fill("server", ends.new)
    assert found.renewed() == found.contents
    assert found.renewed() is None


def test_half_a_renewal_is_passed_over_until_the_other_half_arrives(ends):
    found = files(ends)
    before = found.contents
    issued = ends.new.issue("later")
    shutil.copyfile(issued["cert_file"], ends.folders["server"] / "cert_file")
    assert found.renewed() is None
    (ends.folders["server"] / "key_file").unlink()
    assert found.renewed() is None
    assert found.contents is before
    shutil.copyfile(issued["key_file"], ends.folders["server"] / "key_file")
    renewed = found.renewed()
    assert renewed is not None
    assert renewed.key == issued["key_file"].read_bytes()


@pytest.mark.parametrize("broken", ["cert_file", "key_file", "ca"])
@pytest.mark.parametrize("content", [None, b"", b"not a certificate"])
def test_files_that_cannot_be_used_are_refused_in_one_line(ends, broken, content):
    path = ends.folders["server"] / broken
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(CertificateError, match=r"^tls: [^\n]+$"):
        files(ends)
