# SPDX-License-Identifier: Apache-2.0
"""The file of a correction head: one .npz with its sizes and its weights, every part checked before it is used."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.chunks.a2c2.features import DEFAULT_RECIPE
from reflex_core.errors import ConfigurationError
from reflex_core.files.arrays import ArrayError, read_arrays
from reflex_core.values import Floats

SIZES = {"action_dim": 7, "obs_dim": 256, "chunk_size": 50, "hidden_dim": 128, "num_hidden_layers": 3, "position_encoding_dim": 32}  # fmt: skip
SATURATION = "output_saturation_scale"
DEFAULT_SATURATION = 3.0
FEATURES = "features"
LARGEST_SIZE = 1 << 16
MOST_LAYERS = 64

_WEIGHT = re.compile(r"[wb]\d+")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The contents of a head's file, under the file's own names.

    weights: w0 (hidden_dim, in), wi (hidden_dim, hidden_dim), the last (action_dim, hidden_dim), float32, with
    in = action_dim + obs_dim + position_encoding_dim + 1. biases: one vector per weight.
    features: the recipe of the observation vector; names_features is False when the file does not name them.
    """

    path: Path
    action_dim: int
    obs_dim: int
    chunk_size: int
    hidden_dim: int
    num_hidden_layers: int
    position_encoding_dim: int
    weights: tuple[Floats, ...]
    biases: tuple[Floats, ...]
    output_saturation_scale: float = DEFAULT_SATURATION
    features: str = DEFAULT_RECIPE
    names_features: bool = True


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a head without running code of the file. Raises ConfigurationError with file, key, expected and actual value."""
    arrays = _arrays(path)
    sizes = {key: _size(path, arrays, key) for key in SIZES}
    inputs = sizes["action_dim"] + sizes["obs_dim"] + sizes["position_encoding_dim"] + 1
    hidden, layers = sizes["hidden_dim"], sizes["num_hidden_layers"]
    widths = [inputs, *[hidden] * layers, sizes["action_dim"]]
    expected = {f"{kind}{number}" for kind in "wb" for number in range(layers + 1)}
    surplus = sorted(key for key in arrays if _WEIGHT.fullmatch(key) and key not in expected)
    if surplus:
        raise _wrong(
            path, "num_hidden_layers", f"weights up to w{layers} and b{layers}", f"also {surplus[0]}"
        )
    pairs = list(enumerate(zip(widths[1:], widths, strict=False)))
    return Checkpoint(
        path,
        **sizes,
        weights=tuple(_array(path, arrays, f"w{number}", shape) for number, shape in pairs),
        biases=tuple(_array(path, arrays, f"b{number}", shape[:1]) for number, shape in pairs),
        output_saturation_scale=_saturation(path, arrays),
        features=_features(path, arrays),
        names_features=FEATURES in arrays,
    )


def write_checkpoint(checkpoint: Checkpoint) -> None:
    """Write the file that `read_checkpoint` reads, to `checkpoint.path`."""
    document: dict[str, Any] = {key: np.int64(getattr(checkpoint, key)) for key in SIZES}
    document[SATURATION] = np.float32(checkpoint.output_saturation_scale)
    document[FEATURES] = np.str_(checkpoint.features)
    for number, (weight, bias) in enumerate(zip(checkpoint.weights, checkpoint.biases, strict=True)):
        document[f"w{number}"], document[f"b{number}"] = weight, bias
    np.savez(checkpoint.path, **document)


def _arrays(path: Path) -> Mapping[str, NDArray[Any]]:
    """Read every array of the file; those that only unpickling could make are refused."""
    try:
        return read_arrays(path)
    except OSError as error:
        raise ConfigurationError(
            f"{path}: the A2C2 checkpoint cannot be read: {error.strerror or error}"
        ) from error
    except ArrayError as error:
        raise ConfigurationError(f"{path}: the A2C2 checkpoint: {error}") from error


def _wrong(path: Path, key: str, expected: str, got: str) -> ConfigurationError:
    return ConfigurationError(f"{path}: {key}: expected {expected}, got {got}")


def _size(path: Path, arrays: Mapping[str, NDArray[Any]], key: str) -> int:
    least, most = (0 if key in {"obs_dim", "position_encoding_dim"} else 1), LARGEST_SIZE
    if key == "num_hidden_layers":
        most = MOST_LAYERS
    expected = f"a whole number from {least} to {most}"
    array = arrays.get(key)
    if array is None:
        raise _wrong(path, key, expected, "nothing")
    if array.size != 1 or array.dtype.kind not in "iu":
        raise _wrong(path, key, expected, f"shape {array.shape} of {array.dtype}")
    size = int(array.reshape(())[()])
    if not least <= size <= most:
        raise _wrong(path, key, expected, str(size))
    return size


def _array(path: Path, arrays: Mapping[str, NDArray[Any]], key: str, shape: tuple[int, ...]) -> Floats:
    expected = f"float32 of shape {shape}"
    array = arrays.get(key)
    if array is None:
        raise _wrong(path, key, expected, "nothing")
    if array.dtype.kind != "f" or array.shape != shape:
        raise _wrong(path, key, expected, f"{array.dtype} of shape {array.shape}")
    with np.errstate(over="ignore"):
        taken = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(taken).all():
        raise _wrong(path, key, "finite float32 numbers", "NaN, Inf, or a number too large for float32")
    return taken


def _saturation(path: Path, arrays: Mapping[str, NDArray[Any]]) -> float:
    array = arrays.get(SATURATION)
    if array is None:
        return DEFAULT_SATURATION
    if array.size != 1 or array.dtype.kind not in "fiu":
        raise _wrong(path, SATURATION, "one number above 0", f"shape {array.shape} of {array.dtype}")
    scale = float(array.reshape(())[()])
    if not (math.isfinite(scale) and scale > 0):
        raise _wrong(path, SATURATION, "one number above 0", str(scale))
    return scale


def _features(path: Path, arrays: Mapping[str, NDArray[Any]]) -> str:
    array = arrays.get(FEATURES)
    if array is None:
        return DEFAULT_RECIPE
    if array.size != 1 or array.dtype.kind != "U":
        raise _wrong(path, FEATURES, "one text naming a recipe", f"shape {array.shape} of {array.dtype}")
    return str(array.reshape(())[()])
