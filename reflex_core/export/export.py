# SPDX-License-Identifier: Apache-2.0
"""An export directory: its configuration, hashes, statistics. Reads nothing outside the directory."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reflex_core.errors import ExportError
from reflex_core.export.lookalikes import NOT_AN_EXPORT, lookalike
from reflex_core.export.model_hash import HASH_LENGTH, model_hash, model_hashes
from reflex_core.export.processors import PADDED_STATE, Processors, read_processors
from reflex_core.export.read_normalization import Normalization, read_normalization
from reflex_core.files.json_fields import JsonError, read_json
from reflex_core.files.regular_file import LINK_LOOP, unreadable
from reflex_core.normalization.affine import Affine, affine
from reflex_core.text.suggestions import nearest
from reflex_core.text.untrusted import shown

__all__ = ["Affine", "Export", "affine", "config_hash", "model_hash", "open_export", "read_description"]

CONFIG_NAME = "reflex_config.json"
# keys without which other actions are served; an export may have keys of its own, but hardly one that is almost one of these
_ACTING = (
    "normalization",
    "relative_actions",
    "action_space",
    "action_names",
    "images",
    "units",
    "frequency_hz",
    "num_denoising_steps",
    "sampler",
    "actions_output",
    "first_row",
    "n_action_steps",
    "temporal_ensemble_coeff",
)
_ALMOST = 0.88  # of difflib's ratio: normalisation, relative_action, unit
TETHER_NAME = "tether_config.json"  # the same keys, as another exporter names the file


@dataclass(frozen=True, slots=True)
class Export:
    """One export on disk. `config` is reflex_config.json as it was written.

    weights_hash: over the weight files alone, the model_hash of the first versions. address: the URL of the server that runs the
    policy; then there are no files, and `path` is the file that describes it, where there is one.
    """

    path: Path
    config: Mapping[str, Any]
    model_id: str
    model_hash: str
    config_hash: str
    normalization: Normalization
    processors: Processors | None = None
    weights_hash: str = ""
    address: str = ""

    @property
    def where(self) -> str:
        """The directory, or the address of the server that runs it: what sentences begin with."""
        return self.address or str(self.path)

    def has_weights_of(self, recorded: str) -> bool:
        """Return whether a recorded model_hash, of this or of a first version, names these weights."""
        return recorded != "" and recorded in (self.model_hash, self.weights_hash)

    def why_stale(self, recorded: str) -> str:
        """Return why what was measured on another model_hash does not hold here."""
        if self.has_weights_of(recorded):
            return (
                "was measured by the first version, whose model_hash covered only the weights and which preprocessed"
                " observations differently"
            )
        return f"was measured on weights {recorded!r:.100}, these are {self.model_hash!r}"

    @property
    def state_statistics(self) -> Affine | None:
        """How the state is normalised; None: it is used as it is."""
        return self.normalization.state

    @property
    def action_statistics(self) -> Affine | None:
        """How actions are un-normalised, in the export's own columns; None: they are what the network gives."""
        return self.normalization.action

    @property
    def says_how_it_normalises(self) -> bool:
        """True when it brings statistics, or writes that it needs none (`"mode": "identity"`)."""
        return bool(self.normalization.state_mode or self.normalization.action_mode)

    @property
    def model_version(self) -> str:
        """`<model id>@<model hash>`, what replies and traces call the model; the id alone where no hash is known."""
        return f"{self.model_id}@{self.model_hash}" if self.model_hash or not self.address else self.model_id

    @property
    def config_path(self) -> Path:
        """The file that `config` was read from."""
        return self.path if self.address else config_path(self.path)

    @property
    def ignored_config(self) -> str:
        """A note where the export has two configuration files, else empty."""
        if not all((self.path / name).is_file() for name in (CONFIG_NAME, TETHER_NAME)):
            return ""
        return f"it has a {CONFIG_NAME} and a {TETHER_NAME}: the first is read, the other is not"

    @property
    def not_verified(self) -> str:
        """A note where its own exporter found other answers than the training library's, else empty."""
        source = self.config.get("source")
        if not isinstance(source, Mapping) or source.get("verified") is not False:
            return ""
        return "its exporter found other answers than the training library's, and did not verify it: see VERIFICATION.md"

    def file(self, name: str, purpose: str) -> Path:
        """Return the path of a file. Raises ExportError when it is missing or outside the directory."""
        path = self.path / name
        # by name, not by link target: caches of model hubs are made of links
        if not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(self.path)):
            raise ExportError(f"{self.config_path}: '{name}' ({purpose}) lies outside the export directory")
        if why := unreadable(path):
            message = "missing" if why == "not there" else f"is {why}"
            raise ExportError(f"{path}: {message}: the export needs it as {purpose}", "export-file-missing")
        return path


def config_path(path: Path) -> Path:
    """Return the configuration file: reflex_config.json, or tether_config.json where that alone exists."""
    own, other = path / CONFIG_NAME, path / TETHER_NAME
    return other if other.is_file() and not own.exists() else own


def open_export(path: Path) -> Export:
    """Read the configuration, statistics and hashes of an export. Raises ExportError."""
    found = read_description(path)
    whole, weights = model_hashes(path, found.config, found.normalization.files)
    return replace(found, model_hash=whole, weights_hash=weights)


def read_description(path: Path) -> Export:
    """Read the configuration of an export without its weights, so that `model_hash` is empty. Raises ExportError."""
    described = path.is_dir() and config_path(path).exists()
    if not described and (what := lookalike(path)):
        raise ExportError(f"{path}: {what}", NOT_AN_EXPORT)
    if not path.is_dir():
        what = f"is {LINK_LOOP}" if unreadable(path) == LINK_LOOP else "no such export directory"
        raise ExportError(f"{path}: {what}", "export-missing")
    where = config_path(path)
    config = _read_config(where)
    processors = read_processors(path, _max_state_dim(config))
    return Export(
        path=path,
        config=config,
        model_id=_model_id(config, path),
        model_hash="",
        config_hash=config_hash(config),
        normalization=read_normalization(path, config, str(where), processors),
        processors=processors,
    )


def _max_state_dim(config: Mapping[str, Any]) -> int:
    """Return the width to which a padded family pads its state."""
    declared = config.get("max_state_dim")
    return declared if isinstance(declared, int) and 0 < declared <= 1024 else PADDED_STATE


def _read_config(path: Path) -> dict[str, Any]:
    try:
        document = read_json(path)
    except FileNotFoundError as error:
        raise ExportError(f"{path}: missing: every export needs one", "export-file-missing") from error
    except JsonError as error:
        raise ExportError(f"{path}: {error}") from error
    except OSError as error:
        raise ExportError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not isinstance(document, dict):
        raise ExportError(f"{path}: must hold a JSON object, got {type(document).__name__}")
    for key in document:
        if key not in _ACTING and (meant := nearest(key, _ACTING, _ALMOST)) and meant not in document:
            raise ExportError(f"{path}: there is no key {shown(key)}; did you mean {meant}?")
    return document


def _model_id(config: Mapping[str, Any], path: Path) -> str:
    """Return the last part of `model_id`, short and plain, as it is used in headers and labels."""
    name = str(config.get("model_id") or path.resolve().name).rstrip("/").rsplit("/", 1)[-1]
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in name)[:80]


def config_hash(config: Mapping[str, Any]) -> str:
    """Return the first 16 hex digits of SHA-256 over the configuration as compact JSON with sorted keys."""
    compact = json.dumps(config, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(compact.encode()).hexdigest()[:HASH_LENGTH]
