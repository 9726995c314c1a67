# SPDX-License-Identifier: Apache-2.0
"""Store calibrations on disk, detect stale ones, and merge them with the options that the user gave."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import threading
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from reflex_core.calibration.fingerprint import Fingerprint, fingerprint_from
from reflex_core.calibration.measure import Quality
from reflex_core.errors import ConfigurationError
from reflex_core.files.json_fields import JsonFields, json_text, read_json
from reflex_core.policy.providers import SHORT

SCHEMA_VERSION = 1
OLDEST_DAYS = 30
COLD_START_MS = {"so100": 60.0}
COLD_START_ELSE_MS = 40.0

log = logging.getLogger(__name__)
_writing = threading.Lock()


@dataclass(frozen=True, slots=True)
class Calibration:
    """What is best on one machine for one export on one robot.

    provider: onnxruntime's name. intra_op_threads: 0 where the CPU does not decide. variant: '' is the export as it is.
    latency_compensation_ms: from observation to chunk; a first guess until traffic has taught better.
    """

    chunk_size: int
    denoise_steps: int
    provider: str
    variant: str
    intra_op_threads: int
    latency_compensation_ms: float
    quality: Quality
    context: Mapping[str, str | None]
    timestamp: str

    def document(self) -> dict[str, Any]:
        """Return the entry as it is written to the cache file."""
        return {
            "chunk_size": self.chunk_size,
            "nfe": self.denoise_steps,
            "latency_compensation_ms": round(self.latency_compensation_ms, 3),
            "provider": self.provider,
            "variant": self.variant,
            "intra_op_threads": self.intra_op_threads,
            "measurement_quality": asdict(self.quality),
            "measurement_context": dict(self.context),
            "timestamp": self.timestamp,
        }


@dataclass(frozen=True, slots=True)
class Cache:
    """The whole file. Every entry was measured on the machine of `fingerprint`."""

    fingerprint: Fingerprint
    calibration_date: str
    entries: Mapping[str, Calibration]


def default_path() -> Path:
    """Return ~/.reflex/calibration.json."""
    return Path.home() / ".reflex" / "calibration.json"


def key_of(embodiment: str, model_hash: str) -> str:
    """Return the key of one robot and one export; an export that is served without a robot counts as `custom`."""
    return f"{embodiment or 'custom'}::{model_hash}"


def cold_start_ms(embodiment: str) -> float:
    """Return the latency compensation before any measurement: 60 ms for so100, 40 ms for every other robot."""
    return COLD_START_MS.get(embodiment, COLD_START_ELSE_MS)


def read(path: Path) -> Cache:
    """Read the cache file. Raises FileNotFoundError, or ValueError for a file that cannot be parsed."""
    root = JsonFields(read_json(path), _refuse)
    root.whole("schema_version", SCHEMA_VERSION, SCHEMA_VERSION, expected=str(SCHEMA_VERSION))
    entries = root.fields("entries")
    return Cache(
        fingerprint_from(root.fields("hardware_fingerprint")),
        root.text("calibration_date"),
        {key: _calibration(entries.fields(key)) for key in entries},
    )


def _refuse(key: str, expected: str, got: object) -> ValueError:
    return ValueError(f"'{key}' must be {expected}, got {json_text(got)}")


def _calibration(entry: JsonFields) -> Calibration:
    quality = entry.fields("measurement_quality")
    return Calibration(
        chunk_size=entry.whole("chunk_size", 1),
        denoise_steps=entry.whole("nfe", 1, 1000),
        provider=entry.text("provider"),
        variant=entry.text("variant"),
        intra_op_threads=entry.whole("intra_op_threads", 0, default=0),
        latency_compensation_ms=entry.number("latency_compensation_ms", 0),
        quality=Quality(
            warmup_iters=quality.whole("warmup_iters"),
            measurement_iters=quality.whole("measurement_iters"),
            median_ms=quality.number("median_ms"),
            p99_ms=quality.number("p99_ms"),
            n_outliers_dropped=quality.whole("n_outliers_dropped"),
            quality_score=quality.number("quality_score"),
        ),
        context=dict(entry.fields("measurement_context")),
        timestamp=entry.text("timestamp"),
    )


def stale(cache: Cache, key: str, machine: Fingerprint, now: datetime) -> str:
    """Return why the entry is out of date, '' when it may be used."""
    changed = machine.differences(cache.fingerprint)
    if changed:
        return f"it was measured on other hardware or software: {changed}"
    if key not in cache.entries:
        return f"it has no entry for {key}"
    try:
        taken = datetime.fromisoformat(cache.entries[key].timestamp)
        days = (now - (taken if taken.tzinfo else taken.replace(tzinfo=timezone.utc))).total_seconds() / 86400
    except ValueError:
        return f"its timestamp {cache.entries[key].timestamp!r} is none"
    return f"it is {days:.0f} days old, {OLDEST_DAYS} are allowed" if days > OLDEST_DAYS else ""


def take_over(path: Path, key: str, earlier_key: str, machine: Fingerprint, now: datetime) -> bool:
    """Copy an entry that stands under the key of the first version, unless `key` has one. Return whether it was copied.

    How fast weights run does not depend on tokenizer and statistics, which model_hash did not cover then. Raises OSError.
    """
    earlier, _ = look_up(path, earlier_key, machine, now)
    if earlier is None or key == earlier_key or look_up(path, key, machine, now)[0] is not None:
        return False
    store(path, key, earlier, machine)
    return True


def look_up(path: Path, key: str, machine: Fingerprint, now: datetime) -> tuple[Calibration | None, str]:
    """Return (entry, '') when there is one that may be used, else (None, the reason)."""
    try:
        cache = read(path)
    except FileNotFoundError:
        return None, f"there is no {path} yet"
    except (OSError, ValueError) as error:
        return None, f"{path} cannot be read: {error}"
    reason = stale(cache, key, machine, now)
    return (None, f"{path} is not used: {reason}") if reason else (cache.entries[key], "")


def store(path: Path, key: str, calibration: Calibration, machine: Fingerprint) -> None:
    """Add or replace one entry; entries of another machine are dropped. Raises OSError."""
    with _writing:
        try:
            cache = read(path)
            kept = {} if machine.differences(cache.fingerprint) else dict(cache.entries)
        except (OSError, ValueError):
            kept = {}
        kept[key] = calibration
        _write(path, Cache(machine, calibration.timestamp, kept))


def store_latency(path: Path, key: str, latency_ms: float) -> None:
    """Put what traffic has taught into an entry that is there. Raises OSError or ValueError."""
    with _writing:
        cache = read(path)
        if key not in cache.entries:
            return
        entries = {**cache.entries, key: replace(cache.entries[key], latency_compensation_ms=latency_ms)}
        _write(path, replace(cache, entries=entries))


def _write(path: Path, cache: Cache) -> None:
    document = {
        "schema_version": SCHEMA_VERSION,
        "reflex_version": cache.fingerprint.reflex_version,
        "calibration_date": cache.calibration_date,
        "hardware_fingerprint": cache.fingerprint.document(),
        "entries": {key: cache.entries[key].document() for key in sorted(cache.entries)},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(json.dumps(document, indent=2) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def require_writable(path: Path) -> None:
    """Raise ConfigurationError where the cache could not be written: better now than after minutes of measuring."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"{path}: the calibration cannot be kept there: {error.strerror or error};"
            " give another --calibration-cache",
            "calibration-not-writable",
        ) from error
    if path.is_dir():
        raise ConfigurationError(
            f"{path}: is a directory, the calibration needs a file", "calibration-not-writable"
        )


def resolve(
    values: Mapping[str, object], given: Collection[str], calibration: Calibration
) -> tuple[dict[str, object], tuple[str, ...]]:
    """Return the settings to use and messages about them: an option that the user gave wins over a measured value.

    Args:
        values: The settings as they are.
        given: Names of the settings that the user gave.
        calibration: What was measured.

    Returns:
        providers, intra_op_threads, denoise_steps, chunk_size and variant; a value that is neither in `values` nor
        calibrated is left out. The messages name each measured value that an option overrides.
    """
    found: dict[str, object] = {
        "intra_op_threads": calibration.intra_op_threads,
        "denoise_steps": calibration.denoise_steps,
        "chunk_size": calibration.chunk_size,
        "variant": calibration.variant,
    }
    sentences: list[str] = []
    used: dict[str, object] = {}
    # `--device auto` takes the measured choice
    option = next(
        (name for name in ("providers", "device") if name in given and values[name] not in ("auto", ())), None
    )
    if option is None:
        used["providers"] = (calibration.provider,)
    else:
        used["providers"] = values.get("providers", ())
        wanted = _first_provider(values[option])
        if wanted != calibration.provider:
            given_text = _as_given(values[option])
            sentences.append(
                f"--{option} {given_text} was given: the calibrated {calibration.provider} is not used"
            )
    for name, measured in found.items():
        if name not in given:
            used[name] = measured
            continue
        used[name] = values[name]
        if values[name] != measured:
            flag = "--" + name.replace("_", "-")
            sentences.append(
                f"{flag} {values[name]} was given: the calibrated {measured or 'default'} is not used"
            )
    return used, tuple(sentences)


def _first_provider(value: object) -> str:
    first = value[0] if isinstance(value, tuple | list) and value else value
    return SHORT.get(str(first), str(first))


def _as_given(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
