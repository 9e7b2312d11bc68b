"""Certificate files of one end of TLS, read again when they are renewed.

Contract: `CertificateFiles.contents` is a certificate with its key and authority that fit together;
`renewed` gives newer ones once after the files have changed. A pair that does not fit, or a file
that is away for a moment, is logged and passed over: what was read before stays in use until the
files change again. Renewal needs no watcher: ends of TLS ask when they are about to use what they
hold. Not for judging a peer's certificate: gRPC does that.
"""

import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from parley_core.logging import get_logger
from parley_core.settings import SettingsError

_log = get_logger("parley.certificates")


class CertificateError(SettingsError):
    """The files cannot be used; the message is the cause in one line."""


@dataclass(frozen=True)
class Certificates:
    """PEM bytes of one end of TLS; what is not configured is None.

    Attributes:
        chain: this end's own certificate, leaf first.
        key: private key of the leaf.
        authority: whom to trust.
    """

    chain: bytes | None
    key: bytes | None
    authority: bytes | None

    def not_after(self) -> datetime | None:
        """When this end's own certificate ends; None without one."""
        if self.chain is None:
            return None
        return x509.load_pem_x509_certificate(self.chain).not_valid_after_utc


class CertificateFiles:
    """The files, and what was in them when they were last fit for use.

    Args:
        chain: PEM file of this end's certificate; needs `key`.
        key: PEM file of its private key.
        authority: PEM file of whom to trust.

    Raises:
        CertificateError: they cannot be used.
    """

    def __init__(self, chain: Path | None, key: Path | None, authority: Path | None):
        self._chain, self._key, self._authority = chain, key, authority
        self._seen = self._stamp()
        self.contents = self._read()

    def renewed(self) -> Certificates | None:
        """New contents, once after the files changed; costs one stat a file otherwise."""
        stamp = self._stamp()
        if stamp == self._seen:
            return None
        # A pair half written is seen again when its other half arrives: that changes the stamp.
        self._seen = stamp
        try:
            contents = self._read()
        except CertificateError as error:
            _log.warning("certificate_not_renewed", cause=str(error))
            return None
        if contents == self.contents:
            return None
        self.contents = contents
        until = contents.not_after()
        _log.info("certificate_renewed", not_after=until.isoformat() if until else None)
        return contents

    def _stamp(self) -> tuple[tuple[int, int, int] | None, ...]:
        # Kubernetes swaps a link in the middle of the path: the file behind it is another one then.
        return tuple(_identity(path) for path in (self._chain, self._key, self._authority))

    def _read(self) -> Certificates:
        try:
            if self._chain is not None and self._key is not None:
                # gRPC itself tells a bad pair only by handshakes that fail. The password is never
                # asked for at a terminal.
                context = ssl.create_default_context()
                context.load_cert_chain(self._chain, self._key, password="")
            if self._authority is not None:
                ssl.create_default_context(cafile=self._authority)
            return Certificates(*map(_bytes, (self._chain, self._key, self._authority)))
        except (OSError, ValueError) as error:
            raise CertificateError(
                f"tls: the certificate or its key cannot be used: {error}"
            ) from None


def _identity(path: Path | None) -> tuple[int, int, int] | None:
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _bytes(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()
