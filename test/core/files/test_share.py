# SPDX-License-Identifier: Apache-2.0
"""The version is read where package.xml lies beside config/ and models/."""

from __future__ import annotations

from pathlib import Path

import pytest

from reflex_core.errors import ConfigurationError
from reflex_core.files import share


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(share, "share", lambda: tmp_path)
    return tmp_path


def test_the_version_is_that_of_package_xml(elsewhere: Path) -> None:
    (elsewhere / "package.xml").write_text("<package><version>3.2.1</version></package>", encoding="utf-8")
    assert share.version() == "3.2.1"


def test_a_package_xml_that_is_missing_or_names_no_version_is_one_sentence(elsewhere: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"package\.xml cannot be read: install the package again"):
        share.version()
    (elsewhere / "package.xml").write_text("<package/>", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"package\.xml names no version: install the package again"):
        share.version()
