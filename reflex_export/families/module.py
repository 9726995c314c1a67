# SPDX-License-Identifier: Apache-2.0
"""Functions of tensors as torch modules, and other people's functions in a form that can be traced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def module_of(weights: Any, function: Callable[..., Any]) -> Any:
    """Return `function` as a torch.nn.Module for torch.export to trace.

    weights: the network (torch.nn.Module) whose parameters `function` uses: what is not registered cannot be exported.
    """
    import torch

    class Function(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = weights

        def forward(self, *tensors: Any) -> Any:
            return function(*tensors)

    return Function().eval()


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Let `owner`, a module or an object, have another attribute `name` for as long as graphs are taken from it."""
    own = vars(owner)
    there, before = name in own, own.get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if there:
            setattr(owner, name, before)
        else:
            delattr(owner, name)
