# SPDX-License-Identifier: Apache-2.0
"""Connect to servers elsewhere: the one that runs the policy (--remote), and the one for its failures (--cloud-fallback)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, TypeGuard

import orjson

from reflex_core.engine.engine import DEGRADED, READY
from reflex_core.engine.which_exports import chosen
from reflex_core.errors import SettingError
from reflex_core.export.config_schema import OFF
from reflex_core.files.json_fields import is_number, is_whole
from reflex_core.policy.cloud_server import INVALID, STATUS, CloudError, CloudServer
from reflex_core.policy.remote_server import REFLEX, RemoteAbout, RemoteServer
from reflex_core.settings.table import Settings
from reflex_ros.sidecar.addresses import HTTP, SOCKET, checked_url, read_key, require_key
from reflex_ros.sidecar.cloud_client import VARIABLE as CLOUD_VARIABLE
from reflex_ros.sidecar.cloud_client import HttpCloud, answer_text, read_cloud_key
from reflex_ros.sidecar.openpi_client import OpenpiServer, require_codec
from reflex_ros.sidecar.outgoing_keys import SETTING as KEYS
from reflex_ros.sidecar.outgoing_keys import outgoing_keys
from reflex_ros.sidecar.outgoing_pictures import RAW, OutgoingPictures

VARIABLE = "REFLEX_REMOTE_API_KEY"
SCHEMES = HTTP + SOCKET

log = logging.getLogger(__name__)


class RemoteHttp(HttpCloud):
    """A server of this kind that runs the policy."""

    def about(self, left_s: float) -> RemoteAbout:
        """Return what GET /config says. Raises CloudError."""
        return about_of(*self.get("/config", left_s))


def connect_remote(url: str, settings: Settings) -> RemoteServer:
    """Return the server of --remote. Raises SettingError for a URL or key that cannot be used."""
    key = read_key("remote_api_key_file", settings.remote_api_key_file, VARIABLE)
    pictures = OutgoingPictures(settings.remote_image_size, settings.remote_images == RAW)
    if checked_url(url, "remote", VARIABLE, SCHEMES).scheme in HTTP:
        return RemoteHttp(url, key, name="remote", pictures=pictures, goes_on=True)
    return OpenpiServer(url, key, name="remote", pictures=pictures, keys=settings.remote_keys)


def connect_cloud(settings: Settings) -> CloudServer:
    """Return the server of --cloud-fallback. Raises SettingError for a URL or key that cannot be used."""
    url, key = settings.cloud_fallback, read_cloud_key(settings.cloud_api_key_file)
    log.info("cloud: when the policy fails, images, state and instruction are sent to %s", url)
    if checked_url(url, "cloud_fallback", CLOUD_VARIABLE, SCHEMES).scheme in HTTP:
        return HttpCloud(url, key)
    return OpenpiServer(url, key, name="cloud", keys=settings.remote_keys, described=True)


def check_remote(settings: Settings) -> None:
    """Raise SettingError for URLs and keys of observations that cannot be used."""
    outgoing_keys(settings.remote_keys)
    urls = [("remote", url) for url in _addresses(settings)]
    if settings.cloud_fallback:
        urls.append(("cloud_fallback", settings.cloud_fallback))
    for setting, url in urls:
        variable = VARIABLE if setting == "remote" else CLOUD_VARIABLE
        if checked_url(url, setting, variable, SCHEMES).scheme in SOCKET:
            require_codec(setting, url)
    if settings.remote_keys and not any(url.startswith(SOCKET) for _, url in urls):
        raise SettingError(
            f"setting '{KEYS}': only openpi's servers (ws://, wss://) take keys, and none is named"
        )


def check_remote_key(settings: Settings) -> None:
    """Raise SettingError for key files that cannot be used."""
    needed = bool(_addresses(settings))
    require_key("remote_api_key_file", settings.remote_api_key_file, VARIABLE, needed=needed)
    require_key(
        "cloud_api_key_file",
        settings.cloud_api_key_file,
        CLOUD_VARIABLE,
        needed=bool(settings.cloud_fallback),
    )


def _addresses(settings: Settings) -> tuple[str, ...]:
    """Return the URLs of the servers that run policies; none where options exclude each other, which has a check of its own."""
    try:
        return chosen(settings).addresses
    except SettingError:
        return ()


def about_of(status: int, body: bytes) -> RemoteAbout:
    """Return what /config of a server of this kind says. Raises CloudError."""
    if status != 200:
        raise CloudError(STATUS, f"status {status}: {answer_text(body)}", status)
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise CloudError(INVALID, f"its /config is not JSON: {body[:80]!r}") from error
    found = document.get("effective") if isinstance(document, dict) else None
    if not isinstance(found, dict):
        raise CloudError(INVALID, "its /config does not say what is effectively served")
    state = found.get("state", READY)
    if "action_names" not in found or state not in (READY, DEGRADED):
        raise CloudError(STATUS, f"it is not serving yet, its state is {str(state)[:40]!r}", 503)
    return RemoteAbout(
        dialect=REFLEX,
        model_version=_text(found, "model_version"),
        model_hash=_text(found, "model_version").partition("@")[2],
        config_hash=_text(found, "config_hash"),
        action_names=_names(found.get("action_names")),
        action_dim=len(_names(found.get("action_names"))),
        horizon=_whole(found, "action_horizon"),
        execution_horizon=_whole(found, "n_action_steps"),
        dt_s=_seconds(found),
        cameras=tuple(dict.fromkeys(_names(list(_mapping(found, "cameras").values())))),
        state_names=_names(found.get("state_names")) if found.get("state_used") else (),
        state_dim=_whole(found, "state_dim"),
        reads_state=found.get("state_used") is not False,
        reads_language=found.get("instruction_used") is not False,
        observation_steps=_whole(found, "observation_steps") or 1,
        guides=_mapping(found, "rtc").get("mode", OFF) != OFF,
    )


def _mapping(found: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = found.get(key)
    return value if isinstance(value, dict) else {}


def _names(value: object) -> tuple[str, ...]:
    if _is_names(value):
        return tuple(value)
    raise CloudError(INVALID, f"its /config names {str(value)[:80]!r} where names are expected")


def _is_names(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _text(found: Mapping[str, Any], key: str) -> str:
    value = found.get(key)
    return value[:200] if isinstance(value, str) and value.isascii() and value.isprintable() else ""


def _whole(found: Mapping[str, Any], key: str) -> int:
    value = found.get(key)
    return value if is_whole(value, 0, 2**31) else 0


def _seconds(found: Mapping[str, Any]) -> float | None:
    """Return the seconds from row to row, None where the server does not know them (0) or says none."""
    value = found.get("dt_s")
    return float(value) if is_number(value) and value != 0 else None
