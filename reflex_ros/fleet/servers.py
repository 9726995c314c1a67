# SPDX-License-Identifier: Apache-2.0
"""The list of servers, deploy/fleet.csv, and the key of each."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from reflex_core.errors import ConfigurationError
from reflex_core.files.secrets import read_secret
from reflex_core.text.suggestions import nearest
from reflex_core.text.untrusted import shown

COLUMNS = ["robot_id", "cell", "address"]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")  # a file, a label and a host name
ADDRESS = re.compile(r"(https?://)?([A-Za-z0-9][A-Za-z0-9.-]*):([0-9]{1,5})")
MAX_PORT = 65535
MOST_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Server:
    """A line of the list. name: its --robot-id. secure: it is reached by https."""

    name: str
    cell: str
    host: str
    port: int
    secure: bool = False


def read_servers(path: Path) -> list[Server]:
    """Return the servers of a list, in its order. Raises ConfigurationError for the first line that is none."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        text = data.decode("utf-8")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > MOST_BYTES:
        raise ConfigurationError(f"{path}: a list of servers has at most {MOST_BYTES} bytes")
    rows = [
        (number, [cell.strip() for row in csv.reader([line]) for cell in row])
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.startswith("#")
    ]
    if not rows or rows[0][1] != COLUMNS:
        raise ConfigurationError(f"{path}: the first line must be {','.join(COLUMNS)}")
    servers = [_server(row, f"{path}:{number}") for number, row in rows[1:]]
    for values in ([one.name for one in servers], [f"{one.host}:{one.port}" for one in servers]):
        [(value, times)] = Counter(values).most_common(1) or [("", 1)]
        if times > 1:
            raise ConfigurationError(f"{path}: {value} stands there {times} times")
    if not servers:
        raise ConfigurationError(f"{path}: there is no server in this list")
    return servers


def _server(row: Sequence[str], where: str) -> Server:
    if len(row) != len(COLUMNS):
        raise ConfigurationError(f"{where}: expected {len(COLUMNS)} columns, got {len(row)}")
    name, cell, address = row
    for what, value in (("robot_id", name), ("cell", cell)):
        if not NAME.fullmatch(value):
            raise ConfigurationError(
                f"{where}: {what} {shown(value)}: expected letters, digits, '.', '_' and '-', 63 at most"
            )
    found = ADDRESS.fullmatch(address)
    if not found or not 0 < int(found[3]) <= MAX_PORT:
        raise ConfigurationError(
            f"{where}: address {shown(address)}: expected HOST:PORT such as arm-001.local:8000, or https://HOST:PORT"
        )
    return Server(name, cell, found[2], int(found[3]), found[1] == "https://")


def selected(servers: Sequence[Server], cell: str, only: Collection[str]) -> list[Server]:
    """Return those of a cell and of these names; "" and nothing select all. Raises ConfigurationError for a name that is not there."""
    for what, wanted, known in (
        ("cell", [cell] if cell else [], sorted({one.cell for one in servers})),
        ("server", only, [one.name for one in servers]),
    ):
        for name in wanted:
            if name not in known:
                meant = nearest(name, known)
                hint = f"; did you mean {meant}?" if meant else f"; there are {', '.join(known[:20])}"
                raise ConfigurationError(f"the list has no {what} {shown(name)}{hint}")
    found = [one for one in servers if cell in ("", one.cell) and (not only or one.name in only)]
    if not found:
        raise ConfigurationError(f"none of {', '.join(only)} is in cell {cell}")
    return found


def key_of(server: Server, keys: Path | None) -> str:
    """Return the key of a server, from the file of its name; "" without a folder. Raises ConfigurationError for a bad one."""
    if keys is None:
        return ""
    path = keys / server.name
    try:
        key = read_secret(path).decode("ascii")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if not key or not key.isprintable():
        raise ConfigurationError(f"{path}: there is no key in it")
    return key
