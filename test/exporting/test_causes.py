# SPDX-License-Identifier: Apache-2.0
"""What a library failed of, in a line, and a disk that was full behind any error."""

from __future__ import annotations

import errno

import pytest

from reflex_export.loading.causes import disk_full, reason, with_reason


def wrapped(cause: Exception, message: str) -> Exception:
    try:
        raise RuntimeError(message) from cause
    except RuntimeError as error:
        return error


def test_the_first_cause_is_named_on_one_line_without_colours() -> None:
    error = wrapped(ValueError("\x1b[31mmust be a ResNet\x1b[0m\nand more"), "cannot be built\nat all")
    assert reason(error) == "ValueError: must be a ResNet"
    assert with_reason(error) == "RuntimeError: cannot be built (ValueError: must be a ResNet)"
    assert with_reason(KeyError()) == reason(KeyError()) == "KeyError"
    assert reason(ValueError("found:\n  a.view\n  more")) == "ValueError: found: a.view"
    assert reason(ValueError("a\x07b")).isprintable()
    assert len(reason(ValueError("a" * 10_000))) < 400


@pytest.mark.parametrize(
    ("number", "full"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EACCES, False)]
)
def test_a_full_disk_is_found_behind_other_errors(number: int, full: bool) -> None:
    cause = OSError(number, "it failed")
    assert (disk_full(wrapped(cause, "torch failed")) is cause) == full
    assert (disk_full(cause) is cause) == full
    assert disk_full(ValueError()) is None
