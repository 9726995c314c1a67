# SPDX-License-Identifier: Apache-2.0
"""Where TensorRT keeps the engines of one export, for which GPU and versions they were built, and whether they are there.

An engine is compiled for one GPU, one TensorRT and one precision. So each combination has a directory of its own, and a
manifest in it, `engines.json`, written after all graphs were loaded: without it a build that was interrupted looks whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import onnxruntime as ort

from reflex_core.errors import ConfigurationError
from reflex_core.files.atomic import atomic_write
from reflex_core.files.json_fields import read_object
from reflex_core.policy.gpu import first_gpu

FOUND, MISSING, OTHER = "found", "missing", "other_machine"
STATES = (FOUND, MISSING, OTHER)
BUILD, REFUSE = "build", "refuse"
MANIFEST = "engines.json"
UNKNOWN = "unknown"

_PACKAGES = ("tensorrt-cu13-libs", "tensorrt-cu12-libs", "tensorrt-libs", "tensorrt")
_SHOWN = {
    "gpu": "the GPU",
    "tensorrt": "TensorRT",
    "onnxruntime": "onnxruntime",
    "precision": "the precision",
}


@dataclass(frozen=True, slots=True)
class TensorRT:
    """What the settings say about TensorRT.

    engine_dir: directory of the engines; '' chooses one. when_missing: BUILD or REFUSE. count: called with the state at each load.
    """

    fp16: bool = True
    engine_dir: str = ""
    when_missing: str = BUILD
    count: Callable[[str], None] | None = None


PLAIN_TENSORRT = TensorRT()


@dataclass(frozen=True, slots=True)
class Engines:
    """The engines of one export on one machine. `sentence` says what is wrong with them; '' where they are there."""

    directory: Path
    key: Mapping[str, str]
    state: str
    sentence: str
    fp16: bool = True


def find_engines(export_path: Path, graphs: str, wanted: TensorRT) -> Engines:
    """Find the engines for this machine, or the reason why there are none. Makes its directory, builds nothing.

    Args:
        export_path: The export's directory.
        graphs: Hash of its weights and the name of its variant.
        wanted: Precision, directory, and what is done about missing engines.

    Raises:
        ConfigurationError: No directory can be written, or there are no engines and `wanted` refuses to build them.
    """
    base = engine_base(export_path, wanted.engine_dir)
    key = engine_key(graphs, wanted.fp16)
    directory = base / key_name(key)
    state, sentence = _look(base, directory, key)
    if wanted.count is not None:
        wanted.count(state)
    if state != FOUND and wanted.when_missing == REFUSE:
        raise ConfigurationError(
            f"{directory}: {sentence}; build them with --auto-calibrate --calibrate-force, or let the start build them with"
            " --tensorrt-engines build",
            "no-tensorrt-engines",
        )
    directory.mkdir(exist_ok=True)
    return Engines(directory, key, state, sentence, wanted.fp16)


def engine_key(graphs: str, fp16: bool) -> dict[str, str]:
    """Return everything an engine depends on: graphs, GPU (the first that nvidia-smi lists), versions, precision."""
    return {
        "graphs": graphs,
        "gpu": first_gpu().get("name", UNKNOWN),
        "tensorrt": _version(),
        "onnxruntime": ort.__version__,
        "precision": "fp16" if fp16 else "fp32",
    }


def key_name(key: Mapping[str, str]) -> str:
    """Return the directory name of a key: GPU and precision to be read by people, and 16 hexadecimal digits of SHA-256."""
    digest = hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()
    gpu = re.sub(r"[^a-z0-9]+", "-", key["gpu"].lower()).strip("-")
    return f"{gpu}-{key['precision']}-{digest[:16]}"


def engine_base(export_path: Path, engine_dir: str = "") -> Path:
    """Return a writable directory for engines: the given one, else in the export, else in the user's cache.

    Raises ConfigurationError where none of them can be written.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    own = export_path.resolve()
    tried: tuple[Path, ...] = (
        own / ".ort_trt",
        cache / "reflex" / "tensorrt" / f"{own.parent.name}_{own.name}",
    )
    if engine_dir:
        tried = (Path(engine_dir).expanduser(),)
    for directory in tried:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=directory):
                return directory
        except OSError:
            continue
    raise ConfigurationError(
        f"TensorRT can keep its engines in none of {', '.join(map(str, tried))}: name a writable directory with"
        " --tensorrt-engine-dir"
    )


def keep_manifest(engines: Engines) -> str:
    """Write what the engines in the directory were built for; return a note for the log where there is none.

    To be called when every graph is loaded. Raises ConfigurationError where the file cannot be written.
    """
    files = sorted(path.name for path in engines.directory.glob("*.engine"))
    if not files:
        return (
            f"TensorRT has left no engine in {engines.directory}: it took no part of the graphs, or an axis is free and it"
            " builds at the first inference"
        )
    document = {**engines.key, "files": files}
    atomic_write(engines.directory / MANIFEST, (json.dumps(document, indent=2) + "\n").encode())
    return ""


def _look(base: Path, directory: Path, key: Mapping[str, str]) -> tuple[str, str]:
    """Return the state of a directory, and the sentence about it."""
    own = _manifest(directory)
    if own is not None:
        files = own.get("files")
        listed = files if isinstance(files, list) else []
        absent = [str(name) for name in listed if not (directory / str(name)).is_file()]
        if listed and not absent:
            return FOUND, ""
        return MISSING, f"the engine {absent[0] if absent else ''} that {MANIFEST} lists is not there"
    for path in sorted(base.glob(f"*/{MANIFEST}")):
        other = _manifest(path.parent)
        if other is not None and other.get("graphs") == key["graphs"]:
            changed = [
                f"{shown} was {other.get(name)} and is {key[name]}"
                for name, shown in _SHOWN.items()
                if other.get(name) != key[name]
            ]
            return OTHER, f"the TensorRT engines of {path.parent.name} do not fit here: {', '.join(changed)}"
    return MISSING, "there are no TensorRT engines of this export"


def _manifest(directory: Path) -> dict[str, object] | None:
    try:
        return dict(read_object(directory / MANIFEST))
    except (ConfigurationError, OSError, ValueError):
        return None


def _version() -> str:
    """Return the version of TensorRT's wheel; UNKNOWN where it came another way."""
    for name in _PACKAGES:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return UNKNOWN
