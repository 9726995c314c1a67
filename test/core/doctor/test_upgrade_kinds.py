# SPDX-License-Identifier: Apache-2.0
"""What a file is, shows its content; what is no file, or a trap, is recognised without falling into it."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from first_version import MADE, VERDICTS, judged

from reflex_core.doctor.upgrade.kinds import (
    AUDIT,
    BAG,
    CALIBRATION,
    EMBODIMENT,
    EXPORT,
    FOLDER,
    HEAD,
    OBSERVATION,
    PARAMETERS,
    SAFETY,
    TRACE,
    UNKNOWN,
    found,
)
from reflex_core.files.share import embedded_policy

Output = pytest.CaptureFixture[str]
Trap = Callable[[Path], object]

KINDS = {
    "settings": PARAMETERS, "embodiments": EMBODIMENT, "safety": SAFETY, "observations": OBSERVATION,
    "exports": EXPORT, "traces": TRACE, "bags": BAG, "audit": AUDIT,
}  # fmt: skip


@pytest.mark.parametrize("name", VERDICTS)
def test_everything_that_was_made_is_recognised(name: str) -> None:
    assert found(MADE / name).kind == KINDS[name.partition("/")[0]]


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (MADE / "settings/serve.yaml", PARAMETERS),
        (MADE / "embodiments/arm.json", EMBODIMENT),
        (MADE / "safety/limits.json", SAFETY),
        (MADE / "calibration.json", CALIBRATION),
        (MADE / "traces/plain.jsonl", TRACE),
        (MADE / "traces/demo.jsonl.gz", TRACE),
        (embedded_policy() / "a2c2.npz", HEAD),
        *((path, BAG) for path in MADE.glob("bags/*/*") if path.suffix != ".yaml"),
        *((path, AUDIT) for path in MADE.glob("audit/*")),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else value,
)
def test_names_do_not_matter(source: Path, kind: str, tmp_path: Path) -> None:
    other = Path(shutil.copy(source, tmp_path / "backup of something.tmp"))
    assert found(other).kind == kind


@pytest.mark.parametrize(
    "written",
    [
        "/**: {ros__parameters: {port: 8001}}",
        "{/**: {ros__parameters: {port: 8001}}}",
        '{"/**": {"ros__parameters": {"port": 8001}}}',
        "? /robot1\n: reflex:\n    'ros__parameters':\n      port: 8001\n",
        "/**:\n  ros_parameters:\n    port: 8001\n",
        "/**:\n  ros__parameters:\n    port: [8001\n",
        "reflex:\n  port: 8001\n",
        "embodimnt: franka",
        '{"embodimnt": "franka"}',
        "- 1\n- 2\nros__parameters: {}\n",
    ],
)
def test_a_parameter_file_is_recognised_by_its_structure(written: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(written)
    assert found(path).kind == PARAMETERS


@pytest.mark.parametrize(
    "written",
    [
        "# ros__parameters: of another file\nname: x\n",
        "text: 'ros__parameters: are not here'\n",
        "ros__parameters",
        "services:\n  reflex:\n    image: reflex\n    ports: [8000]\n",
        "name: x\nport: 1\n",
        '{"name": "x"}',
        "{" * 900_000,
        "? " * 400_000,
    ],
    ids=lambda text: text[:20],
)
def test_what_only_names_parameters_is_none(written: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(written)
    assert found(path).kind == UNKNOWN


@pytest.mark.parametrize("part", ["reflex_config.json", "parity.npz", "VERIFICATION.md"])
def test_a_part_of_an_export_is_judged_with_the_whole(part: str, tmp_path: Path) -> None:
    export = MADE / "exports" / "measured"
    assert found(export / part).kind == EXPORT
    assert found(export / part).path == export
    alone = found(Path(shutil.copy(export / part, tmp_path / f"x{part}")))
    assert (alone.kind, alone.why) == (UNKNOWN, alone.why)
    assert "is a part of an export" in alone.why


def test_metadata_yaml_is_a_part_of_its_bag() -> None:
    bag = MADE / "bags" / "mcap.bag"
    assert found(bag / "metadata.yaml") == found(bag)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    return listener


def sparse(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(1 << 40)


def bomb(path: Path) -> None:
    """A header whose line never ends, small on disk."""
    path.write_bytes(gzip.compress(b'{"kind":"header","x":"' + b"x" * (64 << 20), 9))


def arrays_without_end(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("action_dim", "hidden_dim", "num_hidden_layers", "w0", "b0"):
            archive.writestr(f"{name}.npy", b"x")
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")  # the last entry of the directory says that it unpacks to 4 GiB
    data[at + 24 : at + 28] = b"\xfe\xff\xff\xff"
    path.write_bytes(bytes(data))


class Evil:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch /tmp/evil",)


def pickled(path: Path) -> None:
    objects = np.array([Evil()], dtype=object)
    names = ("action_dim", "hidden_dim", "num_hidden_layers", "w0", "b0")
    with path.open("wb") as stream:
        np.savez(stream, **dict.fromkeys(names, objects))


TRAPS: dict[str, tuple[Trap, str]] = {
    "nothing": (lambda _: None, "not there"),
    "fifo": (fifo, "a FIFO"),
    "socket": (listening, "a socket"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a device"),
    "loop": (lambda path: path.symlink_to(path), "symbolic links"),
    "empty": (lambda path: path.touch(), "not a file that reflex"),
    "a terabyte": (sparse, "not a file that reflex"),
    "a picture": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100)), "not a file that reflex"),
    "lfs": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid x\n"), "Git LFS"),
    "deep json": (lambda path: path.write_text('{"a":' * 100_000), "is not valid JSON"),
    "half a json": (lambda path: path.write_text('{"schema_version": 1, "embodiment"'), "is not valid JSON"),
    "a list": (lambda path: path.write_text("[1, 2]"), "not a file that reflex"),
    "gzip bomb": (bomb, "not a file that reflex"),
    "npz that unpacks to gigabytes": (arrays_without_end, "more than 1 GiB"),
    "pickle": (pickled, "plain arrays"),
    "no zip": (lambda path: path.write_bytes(b"PK\x03\x04 nothing"), "is not a valid .npz file"),
    "yaml of aliases": (
        lambda path: path.write_text("a: &a [x, x]\nb: &b [*a, *a]\nreflex:\n  ros__parameters:\n    port: *b\n"),
        "aliases are not read",
    ),
    "a tag of python": (
        lambda path: path.write_text("reflex:\n  ros__parameters:\n    port: !!python/object/apply:os.system ['x']\n"),
        "tag",
    ),
    "twice": (
        lambda path: path.write_text('{"position_min": [0], "position_min": [1], "joint_names": ["a"]}'),
        "is there twice",
    ),
    "no bag": (lambda path: path.write_bytes(b"\x89MCAP0\r\n" + bytes(64)), "reflex bag reindex"),
    "no database": (lambda path: path.write_bytes(b"SQLite format 3\x00" + bytes(64)), "cannot be read as a bag"),
}  # fmt: skip


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_is_refused_in_a_sentence(trap: str, tmp_path: Path, capsys: Output) -> None:
    make, message = TRAPS[trap]
    path = tmp_path / {"no bag": "file.mcap", "no database": "file.db3"}.get(trap, "file")
    held = make(path)
    status, judgements = judged(capsys, path)
    (one,) = judgements.values()
    assert status == 1
    assert one["verdict"] in ("refused", "command")
    assert message in one["said"], one["said"]
    del held
    assert not Path("/tmp/evil").exists()


@pytest.mark.parametrize(
    ("whole", "name"), [("audit", "audit_20990101.jsonl"), ("bags/mcap.bag", "other.mcap")]
)
def test_a_pipe_in_a_recording_is_not_waited_for(
    whole: str, name: str, tmp_path: Path, capsys: Output
) -> None:
    path = Path(shutil.copytree(MADE / whole, tmp_path / "copy"))
    os.mkfifo(path / name)
    _, judgements = judged(capsys, path)
    assert judgements[str(path)]["verdict"] == "refused"
    assert "must be a regular file, it is a FIFO" in judgements[str(path)]["said"]


def test_links_that_lead_back_and_empty_folders_end(tmp_path: Path, capsys: Output) -> None:
    for number in range(40):
        (tmp_path / f"back{number}").symlink_to(tmp_path)
    assert found(tmp_path).kind == FOLDER
    status, judgements = judged(capsys, tmp_path)
    assert (status, judgements[str(tmp_path)]["said"]) == (
        1,
        "contains no file that reflex reads or writes",
    )


def test_a_damaged_header_is_still_a_trace_for_its_reader(tmp_path: Path, capsys: Output) -> None:
    path = tmp_path / "trace"
    path.write_text(json.dumps({"kind": "header", "schema_version": 99}) + "\n")
    _, judgements = judged(capsys, path)
    (one,) = judgements.values()
    assert (one["kind"], one["verdict"]) == (TRACE, "refused")
