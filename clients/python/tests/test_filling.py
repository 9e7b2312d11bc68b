"""Weights that come from elsewhere: a folder, the hub, a bucket."""

import errno
import hashlib
import http.server
import json
import os
import threading
import urllib.parse
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import ClassVar

import pytest
from parley_client.command.main import run
from parley_client.local import buckets, filling, hubs
from parley_client.local.errors import LocalError

pytestmark = pytest.mark.contract

CONTENT = b"weights" * 1000
CHAT = "Step-Audio-Chat/model.safetensors"


def digest(content):
    return hashlib.sha256(content).hexdigest()


def quiet(line):
    pass


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    (folder / "Step-Audio-Chat").mkdir(parents=True)
    (folder / CHAT).write_bytes(CONTENT)
    manifest = {"kind": "pocket", "sha256": {CHAT: digest(CONTENT)}}
    (folder / "parley.json").write_text(json.dumps(manifest))
    return folder


# -- a folder


def test_weights_are_copied_once_and_verified_after(source, tmp_path, capsys):
    root = tmp_path / "claim" / "models"
    assert run(["weights", "copy", str(source), str(root)]) == 0
    assert (root / CHAT).read_bytes() == CONTENT
    assert run(["weights", "copy", str(source), str(root)]) == 0
    (root / CHAT).write_bytes(b"bit rot")
    assert run(["weights", "copy", str(source), str(root)]) == 1
    assert "model.safetensors does not have the checksum" in capsys.readouterr().err


def test_a_file_that_was_removed_is_brought_again(source, tmp_path, capsys):
    """What the refusal of a damaged file tells to do."""
    root = tmp_path / "models"
    assert run(["weights", "copy", str(source), str(root)]) == 0
    (root / CHAT).write_bytes(b"bit rot")
    assert run(["weights", "copy", str(source), str(root)]) == 1
    assert "remove it and run this again" in capsys.readouterr().err
    (root / CHAT).unlink()
    assert run(["weights", "copy", str(source), str(root)]) == 0
    assert (root / CHAT).read_bytes() == CONTENT


def test_damaged_weights_never_get_a_manifest(source, tmp_path):
    (source / CHAT).write_bytes(b"other")
    root = tmp_path / "models"
    with pytest.raises(LocalError) as caught:
        filling.fill(root, filling.Folder(source), quiet)
    assert caught.value.reason == "WEIGHTS_CORRUPT"
    assert not (root / "parley.json").exists()


def test_other_weights_are_not_written_over(source, tmp_path):
    root = tmp_path / "models"
    root.mkdir()
    (root / "parley.json").write_text(json.dumps({"kind": "seeded", "sha256": {}}))
    with pytest.raises(LocalError, match="seeded") as caught:
        filling.fill(root, filling.Folder(source), quiet)
    assert caught.value.reason == "WEIGHTS_FOLDER_TAKEN"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"sha256": {"../x": "0"}}',
        '{"sha256": {"/x": "0"}}',
        '{"sha256": {"a": 1}}',
    ],
)
def test_a_manifest_that_leads_out_of_its_folder_or_is_none_is_refused(text):
    with pytest.raises(LocalError) as caught:
        filling.parse_manifest(text, "there")
    assert caught.value.reason == "MANIFEST_BROKEN"


# -- the hub


class FakeHub:
    """Stands for huggingface_hub: repositories of one large and one small file."""

    def __init__(self, content=CONTENT, told=CONTENT):
        self.content, self.told = content, told
        self.downloads = []

    def model_info(self, repository, *, revision, files_metadata):
        assert files_metadata
        large = SimpleNamespace(
            rfilename="model.safetensors", lfs=SimpleNamespace(sha256=digest(self.told))
        )
        small = SimpleNamespace(rfilename="config.json", lfs=None)
        return SimpleNamespace(sha="abc", siblings=[large, small])

    def snapshot_download(self, repository, *, revision, local_dir):
        assert revision == "abc"
        self.downloads.append(repository)
        local_dir.mkdir(parents=True, exist_ok=True)
        (local_dir / "model.safetensors").write_bytes(self.content)
        (local_dir / "config.json").write_text("{}")


@pytest.fixture
def hub(monkeypatch):
    def install(**kind):
        made = FakeHub(**kind)
        module = SimpleNamespace(HfApi=lambda: made, snapshot_download=made.snapshot_download)
        monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", module)
        return made

    return install


def test_a_download_is_held_against_the_hubs_own_sums(hub, tmp_path):
    hub(content=b"damaged")
    wanted = hubs.Hub({"Step-Audio-Chat": ("stepfun-ai/Step-Audio-Chat", "main")})
    with pytest.raises(LocalError) as caught:
        filling.fill(tmp_path / "models", wanted, quiet)
    assert caught.value.reason == "WEIGHTS_CORRUPT"
    assert not (tmp_path / "models" / "parley.json").exists()
    assert not (tmp_path / "models" / CHAT).exists(), "it would be taken for whole the next time"


def test_models_can_be_added_and_those_there_are_not_fetched_again(hub, tmp_path):
    fake = hub()
    root = str(tmp_path / "models")
    assert run(["weights", "pull", root, "--model", "chat"]) == 0
    assert run(["weights", "pull", root, "--model", "chat", "--model", "tts"]) == 0
    assert fake.downloads == ["stepfun-ai/Step-Audio-Chat", "stepfun-ai/Step-Audio-TTS-3B"]
    manifest = filling.read_manifest(tmp_path / "models")
    assert len(manifest["sha256"]) == 4
    assert run(["weights", "pull", root]) == 0
    assert len(fake.downloads) == 3


def test_a_file_that_was_removed_is_downloaded_again(hub, tmp_path):
    fake = hub()
    root = tmp_path / "models"
    assert run(["weights", "pull", str(root), "--model", "chat", "--model", "tts"]) == 0
    before = filling.read_manifest(root)
    (root / CHAT).unlink()
    assert run(["weights", "pull", str(root), "--model", "chat", "--model", "tts"]) == 0
    assert fake.downloads[2:] == ["stepfun-ai/Step-Audio-Chat"]
    assert (root / CHAT).read_bytes() == CONTENT
    assert filling.read_manifest(root) == before


def test_a_branch_that_moved_on_does_not_mix_into_a_folder(hub, tmp_path, capsys):
    hub()
    root = tmp_path / "models"
    assert run(["weights", "pull", str(root), "--model", "chat"]) == 0
    (root / "Step-Audio-Chat" / "config.json").unlink()
    moved = hub(content=b"newer", told=b"newer")
    assert run(["weights", "pull", str(root), "--model", "chat"]) == 1
    assert "WEIGHTS_FOLDER_TAKEN" in capsys.readouterr().err
    assert moved.downloads == []
    assert (root / CHAT).read_bytes() == CONTENT


def test_another_revision_needs_another_folder(hub, tmp_path, capsys):
    hub()
    root = str(tmp_path / "models")
    asked = "Step-Audio-Chat=me/chat@"
    assert run(["weights", "pull", root, "--repository", f"{asked}v1"]) == 0
    assert run(["weights", "pull", root, "--repository", f"{asked}v2"]) == 1
    assert "holds me/chat at v1, not me/chat at v2" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize("text", ["x", "a=b", "../x=a/b", "..=a/b", "=a/b"])
def test_a_repository_that_is_none_is_refused(text, tmp_path):
    assert run(["weights", "pull", str(tmp_path), "--repository", text]) == 2


# -- a bucket


class FakeBucket(http.server.BaseHTTPRequestHandler):
    """The S3 bucket `models`; `cut` breaks that many transfers off, `endless` tells no lengths."""

    protocol_version = "HTTP/1.1"
    objects: ClassVar[dict[str, bytes]] = {}
    cut = 0
    endless = False
    asked: ClassVar[list[tuple[str, str | None]]] = []
    denied = False

    def do_GET(self):
        path, _, query = self.path.partition("?")
        cls = type(self)
        cls.asked.append((self.path, self.headers.get("Range")))
        if cls.denied or "AWS4-HMAC-SHA256 Credential=me/" not in self.headers["Authorization"]:
            return self.answer(403, b"<Error/>")
        key = urllib.parse.unquote(path.removeprefix("/models").lstrip("/"))
        if not key:
            return self.list(urllib.parse.parse_qs(query))
        if key not in self.objects:
            return self.answer(404, b"<Error/>")
        content, tag = self.objects[key], f'"{digest(self.objects[key])[:8]}"'
        begin = 0
        if wanted := self.headers.get("Range"):
            if self.headers["If-Match"] != tag:
                return self.answer(412, b"<Error/>")
            begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
        return self.answer(206 if begin else 200, content[begin:], tag)

    def list(self, query):
        names = sorted(name for name in self.objects if name.startswith(query["prefix"][0]))
        # One name a page: what follows must be asked for.
        start = int(query.get("continuation-token", ["0"])[0])
        more = f"<NextContinuationToken>{start + 1}</NextContinuationToken>"
        text = (
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            + "".join(
                f"<Contents><Key>{name}</Key></Contents>" for name in names[start : start + 1]
            )
            + (more if start + 1 < len(names) else "")
            + "</ListBucketResult>"
        )
        return self.answer(200, text.encode())

    def answer(self, status, content, tag=""):
        self.send_response(status)
        cls = type(self)
        if not (cls.endless and tag):
            self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", tag)
        self.end_headers()
        if cls.cut and tag:
            cls.cut -= 1
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        else:
            self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setattr(buckets.time, "sleep", lambda seconds: None)
    handler = type("Handler", (FakeBucket,), {"objects": {}, "asked": [], "cut": 0})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    handler.endpoint = f"http://127.0.0.1:{server.server_port}"
    handler.pull = lambda root: run(
        ["weights", "pull", str(root), "--from", "s3://models/a b", "--endpoint", handler.endpoint]
    )
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_prefix_with_a_manifest_brings_what_it_lists_and_is_not_fetched_twice(bucket, tmp_path):
    manifest = {"kind": "pocket", "sha256": {CHAT: digest(CONTENT)}}
    bucket.objects |= {
        "a b/parley.json": json.dumps(manifest).encode(),
        f"a b/{CHAT}": CONTENT,
        "a b/notes.txt": b"not listed",
    }
    root = tmp_path / "models"
    assert bucket.pull(root) == 0
    assert filling.read_manifest(root) == manifest
    assert {path.name for path in root.rglob("*") if path.is_file()} == {
        "parley.json", "model.safetensors",
    }  # fmt: skip
    bucket.asked.clear()
    assert bucket.pull(root) == 0
    assert [path for path, _ in bucket.asked] == ["/models/a%20b/parley.json"]


def test_a_prefix_without_a_manifest_brings_all_pages_of_it(bucket, tmp_path):
    names = [CHAT, "Step-Audio-TTS-3B/config.json", "Step-Audio-Tokenizer/am.mvn"]
    bucket.objects |= {f"a b/{name}": name.encode() for name in names}
    root = tmp_path / "models"
    assert bucket.pull(root) == 0
    assert filling.read_manifest(root)["sha256"] == {name: digest(name.encode()) for name in names}
    (root / CHAT).write_bytes(b"bit rot")
    assert bucket.pull(root) == 1
    (root / CHAT).unlink()
    assert bucket.pull(root) == 0
    assert (root / CHAT).read_bytes() == CHAT.encode()


def test_a_full_disk_is_told_as_what_it_is(bucket, tmp_path, capsys, monkeypatch):
    bucket.objects[f"a b/{CHAT}"] = CONTENT

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(buckets.Bucket, "_download", full)
    assert bucket.pull(tmp_path / "models") == 1
    told = capsys.readouterr().err
    assert "No space left" in told
    assert "WEIGHTS_UNWRITABLE" in told


def test_a_transfer_that_breaks_off_goes_on_where_it_stopped(bucket, tmp_path):
    bucket.objects[f"a b/{CHAT}"] = CONTENT
    bucket.cut = 2
    assert bucket.pull(tmp_path / "models") == 0
    ranges = [wanted for path, wanted in bucket.asked if path.endswith("safetensors")]
    assert ranges == [None, f"bytes={len(CONTENT) // 2}-", f"bytes={len(CONTENT) * 3 // 4}-"]
    assert (tmp_path / "models" / CHAT).read_bytes() == CONTENT


def test_a_transfer_that_does_not_tell_its_length_is_never_taken_for_whole(
    bucket, tmp_path, capsys
):
    bucket.objects[f"a b/{CHAT}"] = CONTENT
    bucket.endless = True
    assert bucket.pull(tmp_path / "models") == 1
    assert "does not tell how long it is [BUCKET_UNREACHABLE]" in capsys.readouterr().err


def test_an_object_that_changed_meanwhile_is_fetched_from_its_start(bucket, tmp_path):
    bucket.objects[f"a b/{CHAT}"] = CONTENT
    bucket.cut = 4
    assert bucket.pull(tmp_path / "models") == 1
    bucket.objects[f"a b/{CHAT}"] = other = b"another" * 1000
    assert bucket.pull(tmp_path / "models") == 0
    assert (tmp_path / "models" / CHAT).read_bytes() == other


def test_what_arrives_damaged_is_told_and_has_no_manifest(bucket, tmp_path, capsys):
    manifest = {"kind": "pocket", "sha256": {CHAT: digest(b"other")}}
    bucket.objects |= {
        "a b/parley.json": json.dumps(manifest).encode(),
        f"a b/{CHAT}": CONTENT,
    }
    assert bucket.pull(tmp_path / "models") == 1
    assert "arrived damaged" in capsys.readouterr().err
    assert list((tmp_path / "models").glob("*.json")) == []


@pytest.mark.parametrize("denied", [True, False])
def test_a_bucket_that_is_closed_or_empty_is_told(bucket, denied, tmp_path, capsys):
    bucket.denied = denied
    assert bucket.pull(tmp_path / "models") == 1
    told = capsys.readouterr().err
    assert ("AWS_ACCESS_KEY_ID" if denied else "holds nothing") in told


@pytest.mark.parametrize(
    "address", ["https://x/y", "s3:///x", "s3://[", "models/x", "s3://a/b?c=d"]
)
def test_an_address_that_is_no_bucket_is_refused(address):
    with pytest.raises(LocalError) as caught:
        buckets.Bucket.parse(address)
    assert caught.value.reason == "BUCKET_INVALID"


def test_the_signature_is_that_of_amazons_own_example():
    """From the documentation of Signature Version 4: GET Bucket (List Objects)."""
    headers = buckets.sign(
        "examplebucket.s3.amazonaws.com", "/", "max-keys=2&prefix=J", "us-east-1",
        datetime(2013, 5, 24, tzinfo=UTC),
        {
            "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        },
    )  # fmt: skip
    assert headers["authorization"].endswith(
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
    )


def test_without_credentials_nothing_is_signed():
    assert buckets.sign("host", "/", "", "r", datetime.now(UTC), {}) == {}
