# SPDX-License-Identifier: Apache-2.0
"""Whatever stands in reflex_config.json: the export is loaded and answers, or is refused in one sentence; nothing else happens."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from checkpoint_folders import FAMILIES, checkpoint_folder, options
from checkpoint_graphs import small_side
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd_json import ODD, places, put

from reflex_core.errors import ConfigurationError
from reflex_core.export.export import CONFIG_NAME, open_export
from reflex_core.policy.load import load_policy
from reflex_export.export import run

# keys that an exporter need not write, so that no place in the file is theirs
KEYS = (
    "action_names", "adaptive", "batch", "constants", "first_row", "frequency_hz", "links", "n_action_steps", "normalization",
    "observation_steps", "policy", "prefix_cache", "relative_actions", "rtc", "sampler", "source", "temporal_ensemble_coeff",
    "units", "variants",
)  # fmt: skip
VALUES: list[Any] = [
    *ODD, 10**9, [0.0] * 6, [[1.0] * 6] * 3, {"verified": [1, 10**9]}, ["degrees"] * 7, {"action": "degrees"}, "exact", [1, 0]
]  # fmt: skip


@pytest.fixture(scope="module", params=FAMILIES)
def export(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete export of one family."""
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reflex_export.export.LIBRARIES", ())
        policy = checkpoint_folder(folder / "policy", request.param)
        run(str(policy), folder / "out", options(), lambda _: None, lambda *_: None, small_side)
    return folder / "out"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_it_is_served_or_refused_in_one_sentence(export: Path, data: st.DataObject) -> None:
    document = json.loads((export / CONFIG_NAME).read_text())
    for _ in range(data.draw(st.integers(1, 2), label="changes")):
        there = [*places(document), *((key,) for key in KEYS if key not in document)]
        path = data.draw(st.sampled_from(there), label="place")
        gone = [...] if path in places(document) else []
        put(document, path, data.draw(st.sampled_from([*gone, *VALUES]), label="value"))
    assert outcome_of(export, document).isprintable()


def test_nothing_in_place_of_an_object_is_served_or_refused_in_one_sentence(export: Path) -> None:
    written = json.loads((export / CONFIG_NAME).read_text())
    for key in {*written, *KEYS}:
        for nothing in (False, 0, "", [], {}, None):
            assert outcome_of(export, written | {key: nothing}).isprintable()


def outcome_of(export: Path, document: Any) -> str:
    """Why an export with this description is refused; "" where it is loaded and answers."""
    file = export / CONFIG_NAME
    written = file.read_text()
    refusal = ""
    try:
        file.write_text(json.dumps(document))
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", RuntimeWarning
            )  # numbers near the end of float32 overflow: the guard holds
            policy = load_policy(open_export(export), None, "cpu", 1)
            policy.predict(policy.canary(), 0)
    except ConfigurationError as error:
        refusal = str(error)
    finally:
        file.write_text(written)
    return refusal
