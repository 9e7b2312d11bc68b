"""Weights from a bucket that speaks S3: AWS, MinIO, Ceph, and others' gateways to it.

Contract: a prefix that holds a ``parley.json`` brings exactly the files that it lists, compared
with its sums; one without brings everything below it, and the sums are those of what arrived,
compared in length. Whole files are not fetched again, and a cut-off file goes on where it stopped
as long as the object is the same. Requests are signed (AWS Signature Version 4) with the standard
library alone, which spares the image an SDK of 90 MB; credentials are AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, none of them for a public bucket. Not for roles of
machines or service accounts: no such credentials are looked for.
"""

import errno
import hashlib
import hmac
import http.client
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

from parley_client.local.errors import LocalError
from parley_client.local.filling import (
    Manifest,
    Report,
    is_below,
    parse_manifest,
    refuse_others,
    sha256,
)
from parley_client.local.weights import MANIFEST

_PIECE = 1 << 20
_TIMEOUT_S = 60.0
_TRIES = 4
_EMPTY = hashlib.sha256(b"").hexdigest()
_AT_ONCE = 4
# Errors of writing here, which no other try and no other bucket would mend.
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EISDIR)


@dataclass(frozen=True)
class Bucket:
    """A prefix in a bucket.

    Attributes:
        name: of the bucket.
        prefix: without slashes at its ends; may be empty.
        endpoint: e.g. ``https://minio.example.com``; empty: AWS's own of the region.
        region: as the endpoint wants it signed.
    """

    name: str
    prefix: str = ""
    endpoint: str = ""
    region: str = "us-east-1"

    @classmethod
    def parse(cls, address: str, endpoint: str = "", region: str = "") -> "Bucket":
        """From ``s3://BUCKET/PREFIX``.

        Raises:
            LocalError: BUCKET_INVALID.
        """
        invalid = LocalError(f"{address} is not s3://BUCKET/PREFIX", reason="BUCKET_INVALID")
        try:
            parts = urllib.parse.urlsplit(address)
        except ValueError:
            raise invalid from None
        if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
            raise invalid
        region = region or os.environ.get("AWS_REGION") or "us-east-1"
        return cls(parts.netloc, parts.path.strip("/"), endpoint.rstrip("/"), region)

    def manifest(self, present: Manifest | None) -> Manifest:
        """The prefix's own manifest, or one that names the prefix and still lacks sums."""
        key = self._key(MANIFEST)
        try:
            with self._get(key) as answer:
                wanted = parse_manifest(answer.read().decode(), f"s3://{self.name}/{key}")
        except urllib.error.HTTPError as error:
            # Without the right to list, an absent object is forbidden instead of not found.
            if error.code not in (403, 404):
                raise self._failed(key, error) from None
            source = f"s3://{self.name}/{self.prefix}"
            if present is not None and present.get("source") == source:
                return present
            wanted = {"kind": "published", "source": source, "sha256": {}}
        except (OSError, http.client.HTTPException, UnicodeDecodeError) as error:
            raise self._failed(key, error) from None
        refuse_others("the folder", present, wanted)
        return wanted

    def fetch(self, root: Path, manifest: Manifest, report: Report) -> None:
        """Brings the files, some at a time.

        Raises:
            LocalError: BUCKET_UNREACHABLE, WEIGHTS_MISSING, WEIGHTS_CORRUPT.
        """
        stated = manifest["sha256"] or dict.fromkeys(self._list())
        if not stated:
            raise LocalError(
                f"s3://{self.name}/{self.prefix} holds nothing", reason="WEIGHTS_MISSING"
            )
        report(f"downloading {len(stated)} files from s3://{self.name}/{self.prefix}")
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            sums = list(pool.map(lambda name: self._bring(root, name, stated[name]), stated))
        manifest["sha256"] = dict(zip(stated, sums, strict=True))

    def _bring(self, root: Path, name: str, stated: str | None) -> str:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if stated is not None and path.is_file() and sha256(path) == stated:
            return stated
        part = path.with_name(f".{path.name}.part")
        for left in reversed(range(_TRIES)):
            try:
                self._download(self._key(name), part)
                break
            except urllib.error.HTTPError as error:
                if not left or error.code < 500:
                    raise self._failed(name, error) from None
            except (OSError, http.client.HTTPException) as error:
                if getattr(error, "errno", None) in _OF_THE_DISK:
                    raise
                if not left:
                    raise self._failed(name, error) from None
            time.sleep(1.0)
        digest = sha256(part)
        if stated is not None and digest != stated:
            part.unlink()
            raise LocalError(f"{name} arrived damaged; run this again", reason="WEIGHTS_CORRUPT")
        part.replace(path)
        return digest

    def _download(self, key: str, part: Path) -> None:
        """Appends to `part` what is missing of the object; the tag beside it tells which object."""
        tag = part.with_suffix(".tag")
        begun = part.stat().st_size if part.is_file() and tag.is_file() else 0
        resume = {"Range": f"bytes={begun}-", "If-Match": tag.read_text()} if begun else {}
        try:
            answer = self._get(key, resume)
        except urllib.error.HTTPError as error:
            if error.code not in (412, 416) or not begun:
                raise
            # Another object by now, or nothing was missing: from the start, to be sure.
            tag.unlink()
            answer = self._get(key)
        with answer, part.open("ab" if answer.status == 206 else "wb") as file:
            length = answer.headers["Content-Length"]
            if length is None:
                raise http.client.HTTPException("it does not tell how long it is")
            tag.write_text(answer.headers.get("ETag", ""))
            expected = file.tell() + int(length)
            while piece := answer.read(_PIECE):
                file.write(piece)
            if file.tell() != expected:
                raise ConnectionError("the transfer was cut off")
        tag.unlink()

    def _list(self) -> Iterator[str]:
        """Names below the prefix."""
        start = f"{self.prefix}/" if self.prefix else ""
        more: dict[str, str] = {}
        while True:
            query = {"list-type": "2", "prefix": start, **more}
            try:
                with self._get("", query=query) as answer:
                    tree = ElementTree.fromstring(answer.read())  # noqa: S314 - no entities in it
            except (OSError, http.client.HTTPException, ElementTree.ParseError) as error:
                raise self._failed(start, error) from None
            for each in tree.iterfind("{*}Contents/{*}Key"):
                name = (each.text or "").removeprefix(start)
                if name.endswith("/") or not name:
                    continue
                if not is_below(name):
                    raise LocalError(f"{name} leads out of the folder", reason="WEIGHTS_CORRUPT")
                yield name
            token = tree.findtext("{*}NextContinuationToken")
            if not token:
                return
            more = {"continuation-token": token}

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name

    def _get(
        self, key: str, headers: Mapping[str, str] | None = None, query: Mapping[str, str] = {}
    ) -> http.client.HTTPResponse:
        endpoint = self.endpoint or f"https://s3.{self.region}.amazonaws.com"
        path = urllib.parse.quote(f"/{self.name}/{key}".rstrip("/"), safe="/-_.~")
        asked = "&".join(
            f"{urllib.parse.quote(name, safe='-_.~')}={urllib.parse.quote(value, safe='-_.~')}"
            for name, value in sorted(query.items())
        )
        url = f"{endpoint}{path}" + (f"?{asked}" if asked else "")
        if not url.startswith(("https://", "http://")):
            raise LocalError(f"{endpoint} is not an address", reason="BUCKET_INVALID")
        host = urllib.parse.urlsplit(url).netloc
        signed = sign(host, path, asked, self.region, datetime.now(UTC), os.environ)
        request = urllib.request.Request(url, headers={**signed, **(headers or {})})  # noqa: S310
        return urllib.request.urlopen(request, timeout=_TIMEOUT_S)  # type: ignore[no-any-return]  # noqa: S310

    def _failed(self, key: str, error: Exception) -> LocalError:
        hints = {
            403: "; it is forbidden: see AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            404: "; there is no such object",
        }
        hint = hints.get(getattr(error, "code", 0), "")
        return LocalError(
            f"cannot read s3://{self.name}/{key}: {error}{hint}", reason="BUCKET_UNREACHABLE"
        )


def sign(
    host: str, path: str, query: str, region: str, now: datetime, environment: Mapping[str, str]
) -> dict[str, str]:
    """Headers of a signed GET without a body; none without credentials."""
    identity = environment.get("AWS_ACCESS_KEY_ID")
    secret = environment.get("AWS_SECRET_ACCESS_KEY")
    if not identity or not secret:
        return {}
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    headers = {"host": host, "x-amz-content-sha256": _EMPTY, "x-amz-date": stamp}
    if token := environment.get("AWS_SESSION_TOKEN"):
        headers["x-amz-security-token"] = token
    names = ";".join(headers)
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    canonical = "\n".join(("GET", path, query, lines, names, _EMPTY))
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    del headers["host"]
    credential = f"Credential={identity}/{scope}"
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 {credential},SignedHeaders={names},Signature={signature}"
    )
    return headers
