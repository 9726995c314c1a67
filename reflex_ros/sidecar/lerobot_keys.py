# SPDX-License-Identifier: Apache-2.0
"""Keys and certificates of the gRPC port: a key in the metadata of each call, TLS where calls bring keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from reflex_ros.sidecar.access import token_of
from reflex_ros.sidecar.admission import ENGINE, KEYRING, refusal_of
from reflex_ros.sidecar.key_file import ACT
from reflex_ros.sidecar.problems import Problem
from reflex_ros.sidecar.tls import Certificate

if TYPE_CHECKING:
    import grpc

NO_KEY = (
    "each call needs a key in its metadata, `authorization: Bearer <key>`; LeRobot's own client brings none, and"
    " --lerobot-insecure lets it in"
)


def robot_of_call(
    app: web.Application, metadata: Iterable[tuple[str, str | bytes]] | None
) -> tuple[str, Problem | None]:
    """Return the robot that the key in the metadata is for, "" for none, and why the call is refused, None where it is not."""
    keyring = app[KEYRING]
    if not keyring.has_file or app[ENGINE].settings.lerobot_insecure:
        return "", None
    brought = {name: value for name, value in metadata or () if isinstance(value, str)}
    found = {
        "Authorization": brought.get("authorization", ""),
        "X-Reflex-Key": brought.get("x-reflex-key", ""),
    }
    access = keyring.access(token_of(found))
    if access is None:
        return "", refusal_of(app, 401, "unauthorized", NO_KEY)
    if not access.may((ACT,)):
        return "", refusal_of(app, 403, "missing-right", f"this needs a key with the right {ACT!r}")
    return access.robot_id, None


def newest_credentials(certificate: Callable[[], Certificate | None]) -> grpc.ServerCredentials:
    """Return credentials that take the newest certificate at each handshake."""
    import grpc  # only here: it is an extra

    def newest() -> Any:
        found = certificate()
        assert found is not None
        return grpc.ssl_server_certificate_configuration([(found.key, found.cert)])

    return grpc.dynamic_ssl_server_credentials(newest(), newest)
