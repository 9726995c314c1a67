# SPDX-License-Identifier: Apache-2.0
"""Who may do what: the holder of a key, its rights, and the right that each route needs."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from reflex_ros.sidecar.key_file import ACT, OPERATE, READ, RIGHTS, Key
from reflex_ros.sidecar.wires.table import ROUTES

SCHEMES = ("bearer", "api-key")  # the second is openpi's
MOST_TOKEN_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Access:
    """What a request may do. robot_id: that its key is for, "" for none. key_id: of the key, "" without one."""

    rights: frozenset[str]
    robot_id: str = ""
    key_id: str = ""

    def may(self, needed: tuple[str, ...]) -> bool:
        """Return whether it has one of these rights."""
        return not self.rights.isdisjoint(needed)

    @property
    def words(self) -> str:
        """How a log line names the holder, "" without a key of the file."""
        if not self.key_id:
            return ""
        return f"key {self.key_id}, robot {self.robot_id}" if self.robot_id else f"key {self.key_id}"


def own_robot(access: Access) -> str:
    """Return the robot whose episodes alone it may report on; "" where it may report on all."""
    return "" if access.may((OPERATE,)) else access.robot_id


EVERYTHING = Access(frozenset(RIGHTS))


def needed_rights(method: str, path: str, *, upgrade: bool = False) -> tuple[str, ...]:
    """Return the rights of which a request needs one. A route that is not listed here takes an operator's."""
    if upgrade or (method == "POST" and path in ROUTES):
        return (ACT,)
    if method == "POST" and path.startswith("/episodes/") and path.endswith("/outcome"):
        return (ACT, OPERATE)  # the robot knows how its episode ended
    return (READ,) if method in ("GET", "HEAD") else (OPERATE,)


def token_of(headers: Mapping[str, str]) -> bytes:
    """Return the key of `Authorization: Bearer` or `Api-Key`, which go first, or of `X-Reflex-Key`; b"" without one."""
    scheme, _, token = headers.get("Authorization", "").strip().partition(" ")
    offered = token if scheme.lower() in SCHEMES else headers.get("X-Reflex-Key", "")
    return offered.strip().encode("utf-8", "surrogateescape")


class Keyring:
    """The keys that are accepted: one with all rights, and those of the file. Any thread may look one up.

    The time of a look-up says nothing of the stored keys: what is compared is a hash under a secret of this process, and
    comparing takes as long where none is found.
    """

    def __init__(
        self,
        single: bytes | None = None,
        keys: Iterable[Key] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """single: the key of --api-key-file. keys: of --keys-file, None without such a file. clock: seconds since 1970."""
        self._secret = secrets.token_bytes(32)
        self._clock = clock
        self._single = None if single is None else self._mixed(hashlib.sha256(single).digest())
        self._by_hash: dict[bytes, Key] = {}
        self._nothing = secrets.token_bytes(32)
        self.has_file = keys is not None
        self.replace(keys or ())

    @property
    def required(self) -> bool:
        """Whether a request must bring a key."""
        return self._single is not None or self.has_file

    def __len__(self) -> int:
        return len(self._by_hash)

    def replace(self, keys: Iterable[Key]) -> None:
        """Accept these keys of the file from now on, and no others."""
        self._by_hash = {self._mixed(bytes.fromhex(key.sha256)): key for key in keys}

    def access(self, token: bytes) -> Access | None:
        """Return what the holder of a key may do; None for a key that is unknown or has expired."""
        if not self.required:
            return EVERYTHING
        mixed = self._mixed(hashlib.sha256(token[: MOST_TOKEN_BYTES + 1]).digest())
        if self._single is not None and hmac.compare_digest(mixed, self._single):
            return EVERYTHING
        key = self._by_hash.get(mixed)
        known = hmac.compare_digest(mixed, self._nothing if key is None else mixed)
        if not known or key is None or self._clock() >= key.expires_s:
            return None
        return Access(frozenset(key.rights), key.robot_id, key.id)

    def _mixed(self, digest: bytes) -> bytes:
        return hmac.digest(self._secret, digest, "sha256")
