# SPDX-License-Identifier: Apache-2.0
"""A tensor on the CPU: the array itself, and onnxruntime's view of it only where a binding needs one."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray


class HostTensor:
    """An array with the interface of onnxruntime.OrtValue. Owned by one session's thread at a time.

    `InferenceSession.run` takes arrays as they are, which is cheaper than a binding made for one run.
    """

    __slots__ = ("_array", "_view")

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array
        self._view: Any = None

    def numpy(self) -> NDArray[Any]:
        """Return the array, not a copy."""
        return self._array

    def view(self) -> Any:
        """Return the onnxruntime.OrtValue of the same memory. It borrows the array: keep this tensor as long."""
        if self._view is None:
            self._array = np.ascontiguousarray(self._array)
            self._view = ort.OrtValue.ortvalue_from_numpy(self._array, "cpu", 0)
        return self._view

    def shape(self) -> list[int]:
        """Return the sizes of all axes."""
        return list(self._array.shape)

    def data_type(self) -> str:
        """Return the element type as onnxruntime names it, such as tensor(float)."""
        return str(self.view().data_type())

    def data_ptr(self) -> int:
        """Return the address of the first element."""
        return int(self.view().data_ptr())

    def device_name(self) -> str:
        """Return cpu."""
        return "cpu"


def ort_value(tensor: Any) -> Any:
    """Return a tensor as the onnxruntime.OrtValue that a binding takes; the caller keeps the tensor alive."""
    return tensor.view() if isinstance(tensor, HostTensor) else tensor
