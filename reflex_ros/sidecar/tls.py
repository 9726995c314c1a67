# SPDX-License-Identifier: Apache-2.0
"""The certificate of this server: checked at the start, replaced without a restart.

What a client would refuse (another key, expired, not yet valid, not for servers) is found by a handshake in memory, which needs
no reader of certificates beside OpenSSL itself.
"""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reflex_core.errors import SettingError
from reflex_core.settings.table import Settings

HANDSHAKE_S = 5.0
MOST_FILE_BYTES = 1 << 20
EXPIRED, NOT_YET = 10, 9  # of OpenSSL's X509_V_ERR


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its key as PEM. not_after_s: when it expires, in seconds since 1970."""

    cert_file: Path
    key_file: Path
    cert: bytes
    key: bytes
    not_after_s: float


def read_certificate(settings: Settings) -> Certificate | None:
    """Return the certificate of the settings, None without one. Raises SettingError for one that clients would refuse."""
    if not settings.tls_cert and not settings.tls_key:
        return None
    if not (settings.tls_cert and settings.tls_key):
        given, missing = ("tls_cert", "tls_key") if settings.tls_cert else ("tls_key", "tls_cert")
        raise SettingError(
            f"setting '{given}': needs '{missing}', too: the certificate and its private key, as PEM"
        )
    cert_file, key_file = Path(settings.tls_cert), Path(settings.tls_key)
    cert, key = _read("tls_cert", cert_file), _read("tls_key", key_file)
    server = server_context()
    try:
        _load(server, cert, key)
    except _EncryptedKeyError as error:
        raise SettingError(
            f"setting 'tls_key': {key_file}: is protected by a password: give a key without one"
        ) from error
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise SettingError(
                f"setting 'tls_key': {key_file}: is not the key of the certificate {cert_file}"
            ) from error
        which, path = (
            ("tls_key", key_file) if b"-----BEGIN CERTIFICATE-----" in cert else ("tls_cert", cert_file)
        )
        raise SettingError(
            f"setting '{which}': {path}: cannot be read as PEM: {error.reason or error}"
        ) from error
    return Certificate(cert_file, key_file, cert, key, _not_after_s(server, cert_file))


def server_context() -> ssl.SSLContext:
    """Return a context for TLS 1.2 and newer, without a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def context_of(certificate: Certificate) -> ssl.SSLContext:
    """Return a context that serves with a certificate."""
    context = server_context()
    use(context, certificate)
    return context


def use(context: ssl.SSLContext, certificate: Certificate) -> None:
    """Serve new connections with a certificate; those that are open keep theirs.

    On the thread of the event loop, which also begins handshakes: OpenSSL does not guard a context against both at once.
    """
    _load(context, certificate.cert, certificate.key)


def _load(context: ssl.SSLContext, cert: bytes, key: bytes) -> None:
    """Load a pair into a context from the bytes that were read once.

    Its files may be replaced between the check and the use, and a context whose certificate has another key serves no client.
    """
    with _file_of(cert) as cert_path, _file_of(key) as key_path:
        context.load_cert_chain(cert_path, key_path, password=_no_password)


@contextmanager
def _file_of(data: bytes) -> Iterator[str]:
    """Give a path to a file without a name: OpenSSL reads certificates of its own from paths alone."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        file.seek(0)
        yield f"/dev/fd/{file.fileno()}"


class _EncryptedKeyError(Exception):
    pass


def _no_password() -> str:
    """Refuse a password: OpenSSL would wait for one at the terminal."""
    raise _EncryptedKeyError


def _read(setting: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise SettingError(
            f"setting '{setting}': {path}: {getattr(error, 'strerror', None) or error}"
        ) from error
    if len(data) > MOST_FILE_BYTES:
        raise SettingError(f"setting '{setting}': {path}: must have at most {MOST_FILE_BYTES} bytes")
    return data


def _not_after_s(server: ssl.SSLContext, path: Path) -> float:
    """Return when the certificate expires. Raises SettingError where a client that trusts it would refuse it."""
    unchecked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
    own = _handshaken(server, unchecked).getpeercert(binary_form=True)
    checking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    checking.check_hostname = False
    checking.load_verify_locations(cadata=own)
    checking.verify_flags |= (
        ssl.VERIFY_X509_PARTIAL_CHAIN
    )  # it is its own root here, as its issuer may be private
    try:
        found = _handshaken(server, checking).getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        why = {EXPIRED: "has expired", NOT_YET: "is not valid yet"}.get(
            error.verify_code, error.verify_message
        )
        raise SettingError(f"setting 'tls_cert': {path}: {why}: clients would refuse it") from error
    return float(ssl.cert_time_to_seconds(str(found["notAfter"])))


def _handshaken(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    """Return the client's end of a connection in memory, after its handshake. Raises ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True))
    waiting = list(ends)
    for _ in range(10):
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                continue
        if ends[0] not in waiting:
            break
    return ends[0]
