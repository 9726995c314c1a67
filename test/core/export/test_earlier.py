# SPDX-License-Identifier: Apache-2.0
"""What is said to be prepared otherwise than by the first version is what is, held against what that version fed its graphs."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from first_version import MADE
from recordings import picture

from reflex_core.engine.load_policy import load
from reflex_core.export.earlier import changes
from reflex_core.metrics.metrics import Metrics
from reflex_core.policy.base import Policy
from reflex_core.settings.table import settings_from
from reflex_core.values import Frame, Observation

THEN: Mapping[str, Mapping[str, Mapping[str, str]]] = json.loads(
    (MADE / "answers" / "prepared.json").read_text()
)
SPOKEN = {"plain": "reach the cube", "odd": " pick_up\nthe cube "}
# what each phrase begins with, and the inputs of a graph that it excuses
STATE = ("the state is divided", "the state is normalised")
PLAIN_WORDS, ODD_WORDS = "the prompt is", "underscores, line breaks and surrounding blanks"


def loaded(path: Path) -> Policy:
    return load(settings_from({"export_dir": str(path), "device": "cpu"}), Metrics()).policy


def fed(policy: Policy, spoken: str) -> dict[str, str]:
    """The hashes of what the graphs are fed for a picture of their own size."""
    frames = {camera: Frame(picture(32, 1), "rgb8", 32, 32) for camera in policy.binding.cameras.values()}
    state = np.linspace(-0.1, 0.1, policy.binding.state_dim or 7).astype(np.float32)
    arrays, *_ = policy.arrays(Observation(frames, state, spoken))
    return {
        key: hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
        for key, array in arrays.items()
    }


@pytest.mark.parametrize("name", THEN)
def test_every_difference_is_named_and_nothing_else_differs(name: str) -> None:
    policy = loaded(MADE / "exports" / name)
    differences = changes(policy.export, policy.contract)
    for kind, spoken in SPOKEN.items():
        now, then = fed(policy, spoken), THEN[name][kind]
        differ = {key for key in then if now[key] != then[key]}
        assert {key for key in differ if key == "state"} == (
            {"state"}
            if any(phrase.startswith(STATE) for phrase in differences) and "state" in then
            else set()
        )
        words = any(phrase.startswith(PLAIN_WORDS) for phrase in differences) or (
            kind == "odd" and any(phrase.startswith(ODD_WORDS) for phrase in differences)
        )
        # a line break more is no token of this tokenizer
        assert words or not any("lang" in key for key in differ)
        assert not any(key.startswith(("img", "pixel")) for key in differ)


@pytest.mark.parametrize(
    ("config", "phrase"),
    [
        (
            {"relative_actions": True},
            "relative actions are converted to positions instead of being served as offsets",
        ),
        ({"language": {"padding_side": "left"}}, "tokens are padded at the left instead of the right"),
        ({"language": {"template": "do {instruction}", "clean": False}}, ""),
        ({"language": {"template": "{instruction}\n", "clean": True}}, ""),
    ],
)
def test_what_an_export_says_itself_counts(config: dict[str, Any], phrase: str, tmp_path: Path) -> None:
    path = Path(shutil.copytree(MADE / "exports" / "calm", tmp_path / "export"))
    document = json.loads((path / "reflex_config.json").read_text())
    (path / "reflex_config.json").write_text(json.dumps(document | config))
    policy = loaded(path)
    differences = [
        one
        for one in changes(policy.export, policy.contract)
        if not one.startswith(("pictures", "the state"))
    ]
    spoken = [one for one in differences if not one.startswith(ODD_WORDS)]
    assert spoken == ([phrase] if phrase else [])
    if "clean" in config.get("language", {}):
        assert differences == []


def test_pictures_that_say_how_they_are_resized_are_resized_as_before(tmp_path: Path) -> None:
    path = Path(shutil.copytree(MADE / "exports" / "mono_smolvla", tmp_path / "export"))
    document = json.loads((path / "reflex_config.json").read_text())
    slots = [
        {
            "camera": name,
            "input": f"img_{name}",
            "mask": f"mask_{name}",
            "resize": "letterbox",
            "filter": "area",
        }
        for name in ("cam1", "cam2", "cam3")
    ]
    (path / "reflex_config.json").write_text(json.dumps(document | {"images": slots}))
    policy = loaded(path)
    assert changes(policy.export, policy.contract) == ()
