# SPDX-License-Identifier: Apache-2.0
"""Authorisation: the keys of the settings, and which addresses may be listened on without one."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from collections.abc import Mapping
from pathlib import Path

from reflex_core.errors import ConfigurationError, SettingError
from reflex_core.files.secrets import read_secret
from reflex_core.settings.table import Settings
from reflex_ros.sidecar.access import Keyring
from reflex_ros.sidecar.key_file import KeyFileError, read_keys

VARIABLE = "REFLEX_API_KEY"
log = logging.getLogger(__name__)

UNKNOWN_HOST = "unknown-host"


def read_key(settings: Settings, environment: Mapping[str, str] = os.environ) -> bytes | None:
    """Return the key of --api-key-file, else of the environment, else None. Raises SettingError for a bad file."""
    if not settings.api_key_file:
        return environment.get(VARIABLE, "").strip().encode() or None
    path = Path(settings.api_key_file)
    try:
        key = read_secret(path)
    except ValueError as error:
        raise SettingError(f"setting 'api_key_file': {path}: {error}") from error
    except OSError as error:
        raise SettingError(f"setting 'api_key_file': {path}: {error.strerror or error}") from error
    if not key:
        raise SettingError(f"setting 'api_key_file': {path} is empty")
    return key


def read_keyring(settings: Settings, environment: Mapping[str, str] = os.environ) -> Keyring:
    """Return the keys that are accepted. Raises SettingError for a file that cannot be used."""
    single = read_key(settings, environment)
    if not settings.keys_file:
        return Keyring(single)
    try:
        return Keyring(single, read_keys(Path(settings.keys_file)))
    except KeyFileError as error:
        raise SettingError(f"setting 'keys_file': {error}") from error


def check_address(settings: Settings, *, has_key: bool) -> None:
    """Raise ConfigurationError when any host on the network could send requests without a key.

    A host that cannot be resolved is refused first: no key would help there.
    """
    try:
        socket.getaddrinfo(settings.host or None, settings.port, flags=socket.AI_PASSIVE)
    except (OSError, ValueError) as error:
        message = f"--host {settings.host}: {getattr(error, 'strerror', None) or error}"
        raise ConfigurationError(message, UNKNOWN_HOST) from error
    if has_key or settings.insecure or is_loopback(settings.host):
        return
    raise ConfigurationError(
        f"--host {settings.host} can be reached from other machines: set {VARIABLE} or --api-key-file or --keys-file,"
        " or say --insecure",
        "insecure-address",
    )


def warn_of_plain_keys(settings: Settings, *, has_key: bool) -> None:
    """Log a warning where keys would come over the network as plain text."""
    if has_key and not settings.tls_cert and not is_loopback(settings.host):
        text = "keys are sent to --host %s unencrypted: serve https with --tls-cert and --tls-key, or put a TLS proxy before it"
        log.warning(text, settings.host)


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address or a host name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:
        return False
    return bool(host) and all(ipaddress.ip_address(entry[4][0]).is_loopback for entry in found)
