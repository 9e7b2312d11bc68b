"""The programs that images carry beside the services: the health probe, the filler of weights."""

import hashlib
import importlib.util
import json
import subprocess
import sys

import pytest
from chart import REPOSITORY
from grpc_health.v1 import health_pb2_grpc
from parley_core.server import Server
from parley_core.settings import ServiceSettings

pytestmark = pytest.mark.contract


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PROBE = REPOSITORY / "images" / "health_probe.py"
weights = load(REPOSITORY / "images" / "tools" / "fill_weights.py")
assert health_pb2_grpc


@pytest.fixture
async def server():
    made = Server(ServiceSettings(), name="test")
    await made.start()
    yield made
    await made.stop()


async def probe(*arguments):
    import asyncio

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


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    (folder / "Step-Audio-Chat").mkdir(parents=True)
    content = b"weights"
    (folder / "Step-Audio-Chat" / "model.safetensors").write_bytes(content)
    sums = {"Step-Audio-Chat/model.safetensors": hashlib.sha256(content).hexdigest()}
    (folder / "parley.json").write_text(json.dumps({"kind": "pocket", "sha256": sums}))
    return folder


def test_weights_are_copied_once_and_verified_after(source, tmp_path):
    root = tmp_path / "claim" / "models"
    assert weights.main(["copy", str(source), str(root)]) == 0
    copied = root / "Step-Audio-Chat" / "model.safetensors"
    assert copied.read_bytes() == b"weights"
    assert weights.main(["copy", str(source), str(root)]) == 0
    copied.write_bytes(b"bit rot")
    assert weights.main(["copy", str(source), str(root)]) == 1


def test_damaged_weights_never_get_a_manifest(source, tmp_path, capsys):
    (source / "Step-Audio-Chat" / "model.safetensors").write_bytes(b"other")
    root = tmp_path / "models"
    assert weights.main(["copy", str(source), str(root)]) == 1
    assert not (root / "parley.json").exists()
    assert "model.safetensors" in capsys.readouterr().err


def test_other_weights_are_not_written_over(source, tmp_path, capsys):
    root = tmp_path / "models"
    root.mkdir()
    (root / "parley.json").write_text(json.dumps({"kind": "published", "sha256": {}}))
    assert weights.main(["copy", str(source), str(root)]) == 1
    assert "holds other weights" in capsys.readouterr().err


class Hub:
    """Stands for huggingface_hub: one repository of one large file."""

    def __init__(self, content, told):
        self.content, self.told = content, told

    def model_info(self, repository, *, revision, files_metadata):
        from types import SimpleNamespace as Bag

        assert files_metadata
        lfs = Bag(sha256=hashlib.sha256(self.told).hexdigest())
        return Bag(sha="abc", siblings=[Bag(rfilename="model.safetensors", lfs=lfs)])

    def snapshot_download(self, repository, *, revision, local_dir):
        assert revision == "abc"
        local_dir.mkdir(parents=True)
        (local_dir / "model.safetensors").write_bytes(self.content)


@pytest.mark.parametrize(("arrived", "status"), [(b"good", 0), (b"damaged", 1)])
def test_a_download_is_held_against_the_hubs_own_sums(arrived, status, tmp_path, monkeypatch):
    import huggingface_hub

    hub = Hub(arrived, told=b"good")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    wanted = json.dumps(
        {"Step-Audio-Chat": {"repository": "stepfun-ai/Step-Audio-Chat", "revision": "main"}}
    )
    assert weights.main(["hub", str(tmp_path / "models"), wanted]) == status
    assert (tmp_path / "models" / "parley.json").exists() == (status == 0)
