# SPDX-License-Identifier: Apache-2.0
"""Addresses of other servers, and the keys for them."""

from __future__ import annotations

import ipaddress
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from reflex_core.errors import SettingError
from reflex_core.files.secrets import read_secret

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*/?")
HTTP, SOCKET = ("http", "https"), ("ws", "wss")
PLAIN = ("http", "ws")
HOP_HEADER = "X-Reflex-Hop"  # of requests that another server sends on: they are not sent on again

log = logging.getLogger(__name__)


def read_key(
    setting: str, path: str, variable: str, environment: Mapping[str, str] = os.environ
) -> str | None:
    """Return the key of the file, else of the environment variable, else None. Raises SettingError for one that cannot be sent."""
    text = environment.get(variable, "")
    where = f"the environment variable {variable}"
    if path:
        where = f"setting '{setting}': {path}"
        try:
            text = read_secret(Path(path)).decode("utf-8")
        except (OSError, ValueError) as error:
            raise SettingError(f"{where}: {getattr(error, 'strerror', None) or error}") from error
    key = text.strip()
    if path and not key:
        raise SettingError(f"{where} is empty")
    if not (key.isascii() and key.isprintable()):
        raise SettingError(f"{where} must be one line of printable ASCII")
    return key or None


def require_key(setting: str, path: str, variable: str, *, needed: bool) -> None:
    """Raise SettingError for a key file that cannot be used; a key that comes out of a pipe is not read yet."""
    try:
        if path:
            Path(path).stat()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise SettingError(f"setting '{setting}': {path}: {why}") from error
    if needed and not (path and Path(path).is_fifo()):
        read_key(setting, path, variable)


def checked_url(
    url: str, setting: str = "cloud_fallback", variable: str = "REFLEX_CLOUD_API_KEY", schemes: tuple[str, ...] = HTTP
) -> SplitResult:  # fmt: skip
    """Return the parts of a base URL such as https://host:8000/prefix. Raises SettingError for anything else."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise _bad_url(url, setting, str(error)) from error
    if parts.username is not None or parts.password is not None:
        raise SettingError(f"setting '{setting}': no password in the URL, put the key into {variable}")
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise _bad_url(url, setting, "only printable ASCII without blanks")
    if parts.scheme not in schemes or not host:
        expected = " or ".join(f"{scheme}://" for scheme in schemes)
        raise _bad_url(url, setting, f"it must begin with {expected} and a host")
    if parts.query or parts.fragment or not _PREFIX.fullmatch(parts.path):
        raise _bad_url(url, setting, "after the host only a path prefix is possible")
    if parts.path.rstrip("/").endswith("/act"):
        raise _bad_url(url, setting, "give the server, without /act")
    return parts


def warn_of_plain_key(parts: SplitResult, name: str) -> None:
    """Log a warning where a key would leave this machine unencrypted."""
    if parts.scheme in PLAIN and not _is_loopback(parts.hostname or ""):
        log.warning("%s: the API key is sent unencrypted to %s: use https or wss", name, parts.netloc)


def _bad_url(url: str, setting: str, why: str) -> SettingError:
    return SettingError(f"setting '{setting}': {url[:200]!r} is not the URL of a server: {why}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
