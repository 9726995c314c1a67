# SPDX-License-Identifier: Apache-2.0
"""Put the tensors of model.safetensors into a policy, and refuse whatever does not match, by the names of the tensors.

LeRobot itself goes on without a word where tensors are missing, and pi0 and pi0.5 even where the whole file cannot be read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from reflex_core.errors import ExportError

# statistics that LeRobot 0.3 kept among the weights
_STATISTICS = ("normalize_inputs.", "normalize_targets.", "unnormalize_inputs.", "unnormalize_outputs.")
_SHOWN = 3


def uninitialised() -> AbstractContextManager[Any]:
    """Return a context in which modules are built with parameters that nothing is written into.

    Memory that was never written takes no room, and the random numbers of a large policy take longer than reading its file.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class Uninitialised(TorchFunctionMode):
        def __torch_function__(self, function: Any, _types: Any, given: Any = (), named: Any = None) -> Any:
            named = named or {}
            tensor = named.get("tensor", given[0] if given else None)
            of_parameter = isinstance(tensor, torch.nn.Parameter)
            if of_parameter and getattr(function, "__module__", None) == "torch.nn.init":
                return tensor
            return function(*given, **named)

    return Uninitialised()


def assign(policy: Any, path: Path) -> None:
    """Give every tensor of the policy the numbers of the file, as float32 where it is a float.

    A float32 tensor stays in the file, which is mapped, so that there is one copy of the weights in memory.

    Args:
        policy: A torch.nn.Module whose values do not matter yet.
        path: model.safetensors.

    Raises:
        ExportError: The file is damaged, lacks a tensor, has one too many, or one of another shape or without finite numbers.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    own = policy.state_dict(keep_vars=True)
    try:
        with safe_open(str(path), "pt") as file:
            written = [name for name in file.keys() if not name.startswith(_STATISTICS)]  # noqa: SIM118
            sources = _sources(policy, own, written)
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in written}
            _check(own, sources, shapes, path)
            for name, source in sources.items():
                _give(own[name], file.get_tensor(source), f"{path}: '{source}'")
            different = [
                source for name, source in sources.items()
                if not torch.equal(own[name].data, file.get_tensor(source).to(own[name].dtype))
            ]  # fmt: skip
    except SafetensorError as error:
        raise ExportError(f"{path}: cannot be read as safetensors: {error}", "bad-weights") from error
    if different:
        raise ExportError(
            f"{path}: {_listed(different)} must equal another tensor, as the policy has one place for both",
            "bad-weights",
        )


def _give(place: Any, tensor: Any, called: str) -> None:
    """Put the numbers of a tensor into the policy's. Raises ExportError for whole numbers in place of others, NaN and Inf."""
    import torch

    if tensor.is_floating_point() != place.is_floating_point():
        raise ExportError(f"{called} is {tensor.dtype}, the policy has {place.dtype} there", "bad-weights")
    tensor = tensor.float() if tensor.is_floating_point() else tensor
    # the extremes are NaN where any number is, and take no memory
    if tensor.is_floating_point() and tensor.numel() and not torch.stack(tensor.aminmax()).isfinite().all():
        raise ExportError(
            f"{called} holds NaN or Inf: the training diverged, or the file is damaged: export an earlier checkpoint",
            "bad-weights",
        )
    place.data = tensor


def _sources(policy: Any, own: Collection[str], written: Collection[str]) -> dict[str, str]:
    """Return name in the policy -> name in the file, by the rules of the policy's own class; nothing for what it lacks."""
    sources: Mapping[str, str] = {name: _Name(name) for name in written}
    if hasattr(policy, "_fix_pytorch_state_dict_keys"):
        sources = policy._fix_pytorch_state_dict_keys(sources, policy.config)  # noqa: SLF001
    found = {}
    for name, source in sources.items():
        plain = name.replace("_orig_mod.", "")  # what torch.compile puts into names
        prefixed = f"model.{plain}"
        found[prefixed if plain not in own else plain] = str(source)
    return {name: source for name, source in found.items() if name in own}


class _Name(str):
    """The name of a tensor in the place of the tensor, for LeRobot's own renaming, which copies what it writes twice."""

    __slots__ = ()

    def clone(self) -> _Name:
        return self


def _check(
    own: Mapping[str, Any], sources: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], path: Path
) -> None:
    """Raise ExportError unless the file has exactly the policy's tensors; of tied ones, one.

    own: name -> tensor of the policy. sources: name in the policy -> name in the file. shapes: name in the file -> shape.
    """
    if unknown := [name for name in shapes if name not in sources.values()]:
        raise ExportError(
            f"{path}: has {_listed(unknown)} that the policy of config.json does not have: it is another policy's file, or one"
            " of another version of LeRobot",
            "bad-weights",
        )
    reached = {id(own[name]) for name in sources}
    if missing := [name for name, tensor in own.items() if id(tensor) not in reached]:
        raise ExportError(
            f"{path}: lacks {_listed(missing)}, and LeRobot would leave random numbers there: copy the checkpoint again",
            "bad-weights",
        )
    for name, source in sources.items():
        if shapes[source] != tuple(own[name].shape):
            raise ExportError(
                f"{path}: '{source}' is {shapes[source]}, the policy of config.json has {tuple(own[name].shape)} there",
                "bad-weights",
            )


def _listed(names: Collection[str]) -> str:
    first = ", ".join(f"'{name}'" for name in list(names)[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''} ({first}{more})"
