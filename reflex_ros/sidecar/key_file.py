# SPDX-License-Identifier: Apache-2.0
"""The file of hashed API keys: one JSON object a line, each with an id, a robot, rights and an expiry.

A key is 256 random bits, so that its SHA-256 is enough: there is no list of likely keys to try against the file, and a slow
hash such as scrypt, which protects passwords that people choose, would cost milliseconds of every request.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import orjson

from reflex_core.errors import ReflexError
from reflex_core.files.atomic import atomic_write
from reflex_core.robot.callers import require_robot_id
from reflex_core.text.untrusted import escaped, shown

ACT, OPERATE, READ = "act", "operate", "read"
RIGHTS = (ACT, OPERATE, READ)
PREFIX = "rk_"  # so that a scanner for leaked secrets can recognise one
KEY_BYTES = 32
MOST_KEYS = 10_000
MOST_FILE_BYTES = 8 << 20
MOST_NOTE = 200
FIELDS = ("id", "sha256", "rights", "robot_id", "created", "expires", "note")
_ID, _HASH = re.compile(r"[A-Za-z0-9_.-]{1,64}"), re.compile(r"[0-9a-f]{64}")


class KeyFileError(ReflexError):
    """The file cannot be used; the sentence names it and the line."""

    slug = "bad-keys-file"


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the file. sha256: hex of the key's hash. robot_id: of the robot that holds it, "" for a key of no robot.

    created, expires: ISO 8601 in UTC; expires "" for a key that does not expire.
    """

    id: str
    sha256: str
    rights: tuple[str, ...]
    robot_id: str = ""
    created: str = ""
    expires: str = ""
    note: str = ""

    @property
    def expires_s(self) -> float:
        """When it expires, in seconds since 1970; infinity for never."""
        return seconds_of(self.expires) if self.expires else float("inf")


def hash_of(token: bytes) -> str:
    """Return the hash of a key as the file holds it."""
    return hashlib.sha256(token).hexdigest()


def utc(moment_s: float) -> str:
    """Return seconds since 1970 as ISO 8601 in UTC."""
    return datetime.fromtimestamp(moment_s, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_of(text: str) -> float:
    """Return ISO 8601 as seconds since 1970; a date is its midnight in UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text.removesuffix("Z") + ("+00:00" if text.endswith("Z") else ""))
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)).timestamp()


def fresh_key(
    rights: Sequence[str], robot_id: str, created_s: float, expires_s: float | None, note: str
) -> tuple[str, Key]:
    """Return a new key as its holder needs it, and its entry. The first is in no file: it cannot be shown again."""
    token = PREFIX + secrets.token_urlsafe(KEY_BYTES)
    expires = "" if expires_s is None else utc(expires_s)
    name = f"k-{secrets.token_hex(4)}"
    return token, Key(name, hash_of(token.encode()), tuple(rights), robot_id, utc(created_s), expires, note)


def read_keys(path: Path) -> tuple[Key, ...]:
    """Return the keys of a file. Raises KeyFileError for one that others may write, or with a line that is no key."""
    try:
        stream = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            _require_private(path, os.fstat(stream))
            with os.fdopen(os.dup(stream), "rb") as file:
                data = file.read(MOST_FILE_BYTES + 1)
        finally:
            os.close(stream)
    except (OSError, ValueError) as error:
        raise KeyFileError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > MOST_FILE_BYTES:
        raise KeyFileError(f"{path}: must have at most {MOST_FILE_BYTES} bytes")
    return _keys(path, data)


def _require_private(path: Path, found: os.stat_result) -> None:
    """Raise KeyFileError where another user could add a key. To read it does no harm: hashes of random keys open nothing."""
    if not stat.S_ISREG(found.st_mode):
        raise KeyFileError(f"{path}: must be a regular file")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise KeyFileError(
            f"{path}: other users may write it (mode {stat.S_IMODE(found.st_mode):04o}): chmod go-w {path}"
        )
    if found.st_uid not in (0, os.geteuid()):
        raise KeyFileError(
            f"{path}: belongs to user {found.st_uid}; it must belong to root or to the user of the server ({os.geteuid()})"
        )


def _keys(path: Path, data: bytes) -> tuple[Key, ...]:
    found: dict[str, Key] = {}
    hashes: set[str] = set()
    for number, line in enumerate(data.splitlines(), 1):
        text = line.strip()
        if not text or text.startswith(b"#"):
            continue
        try:
            key = _key(text)
            if key.id in found or key.sha256 in hashes:
                raise ValueError(f"the key {key.id!r} is in the file twice")
        except ValueError as error:
            raise KeyFileError(f"{path}: line {number}: {error}") from error
        found[key.id] = key
        hashes.add(key.sha256)
        if len(found) > MOST_KEYS:
            raise KeyFileError(f"{path}: must have at most {MOST_KEYS} keys")
    return tuple(found.values())


def _key(line: bytes) -> Key:
    """Return the key of a line. Raises ValueError."""
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg}") from error
    if not isinstance(document, dict):
        raise ValueError(f"must be a JSON object, got {shown(document)}")
    if unknown := sorted(set(document) - set(FIELDS)):
        raise ValueError(f"has the unknown field {shown(unknown[0])}; known are {', '.join(FIELDS)}")
    rights = document.get("rights")
    if not isinstance(rights, list) or not rights or not all(right in RIGHTS for right in rights):
        raise ValueError(f"'rights' must be a list of {', '.join(RIGHTS)}, got {shown(rights)}")
    texts = {name: _text(document, name) for name in FIELDS if name != "rights"}
    if not _ID.fullmatch(texts["id"]):
        raise ValueError(f"'id' must be 1 to 64 letters, digits or -_., got {shown(texts['id'])}")
    if not _HASH.fullmatch(texts["sha256"]):
        raise ValueError(f"'sha256' must be 64 hex digits, got {shown(texts['sha256'])}")
    key = Key(rights=tuple(rights), **texts)
    require_entry(key)
    return key


def require_entry(key: Key) -> None:
    """Raise ValueError for a robot, an expiry or a note that no key may have."""
    if key.robot_id:
        try:
            require_robot_id(key.robot_id)
        except ReflexError as error:
            raise ValueError(str(error)) from error
    for name in ("created", "expires"):
        text = getattr(key, name)
        try:
            _ = seconds_of(text) if text else 0.0
        except (ValueError, OverflowError) as error:
            raise ValueError(
                f"'{name}' must be a time such as 2027-01-31T12:00:00Z, got {shown(text)}"
            ) from error
    if len(key.note) > MOST_NOTE or not key.note.isprintable():
        raise ValueError(f"'note' must be at most {MOST_NOTE} printable characters")


def _text(document: dict[str, Any], name: str) -> str:
    value = document.get(name)
    if value is None and name not in ("id", "sha256"):
        return ""
    if not isinstance(value, str):
        raise ValueError(f"'{name}' must be a string, got {shown(value)}")
    return value


def add_key(path: Path, key: Key) -> None:
    """Append an entry; a new file can be read and written by its owner alone. Raises KeyFileError, ValueError."""
    require_entry(key)
    with _locked(path):
        before = _lines(path)
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600))
        _write(path, [*before, orjson.dumps(asdict(key))])


def revoke_key(path: Path, name: str) -> Key:
    """Remove the entry with this id and return it. Raises KeyFileError where there is none."""
    with _locked(path):
        keys = {key.id: key for key in read_keys(path)}
        if name not in keys:
            raise KeyFileError(f"{path}: has no key {escaped(name)!r}")
        gone = keys[name]
        _write(path, [line for line in _lines(path) if not _is_entry(line, gone)])
        return gone


def _is_entry(line: bytes, key: Key) -> bool:
    text = line.strip()
    return bool(text) and not text.startswith(b"#") and _key(text).id == key.id


def _lines(path: Path) -> list[bytes]:
    """Return the lines of the file as they are, comments included; none where there is no file. Raises KeyFileError."""
    if not path.exists():
        return []
    read_keys(path)  # a file that is broken is not made longer
    return path.read_bytes().splitlines()


def _write(path: Path, lines: Sequence[bytes]) -> None:
    target = path.resolve()  # a link stays one
    atomic_write(target, b"".join(line + b"\n" for line in lines))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep out another `reflex key` of the same directory, which would write the file without this change."""
    try:
        folder = os.open(path.resolve().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror or error}") from error
    finally:
        os.close(folder)
