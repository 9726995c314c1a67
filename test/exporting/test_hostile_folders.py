# SPDX-License-Identifier: Apache-2.0
"""Whatever stands in the JSON of a checkpoint: it is read and described, or refused in one sentence; nothing else happens."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from checkpoint_folders import AFTER, BEFORE, CONFIG, DATASET, FAMILIES, checkpoint_folder, options
from checkpoint_graphs import described
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reflex_core.errors import ConfigurationError
from reflex_export.documents.description import describe
from reflex_export.documents.embodiment_skeleton import skeleton
from reflex_export.documents.model_card import model_card
from reflex_export.documents.readable_json import readable
from reflex_export.folder.read_folder import read_checkpoint
from reflex_export.result import Verification

ODD: list[Any] = [
    None, True, False, -1, 0, 1, 7, 3.5, 1e308, 10**30, "", "x", "é\n\x1b[31m", "..", [], [1], [1, 2], [0, 0], ["a", "a"],
    [None], {}, {"a": 1}, [[[[]]]], "a" * 500,
]  # fmt: skip
DATA_SET = "info.json"


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON document."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*path, key))
    return found


def put(document: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        document = document[key]
    if value is ...:
        del document[path[-1]]
    else:
        document[path[-1]] = copy.deepcopy(value)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_it_is_read_or_refused_in_one_sentence(family: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = checkpoint_folder(Path(name) / "policy", family)
        info = Path(name) / DATA_SET
        info.write_text((DATASET / "meta" / "info.json").read_text())
        file = data.draw(
            st.sampled_from([folder / CONFIG, folder / BEFORE, folder / AFTER, info]), label="file"
        )
        document = json.loads(file.read_text())
        for _ in range(data.draw(st.integers(1, 2), label="changes")):
            there = places(document)
            if there:
                put(
                    document,
                    data.draw(st.sampled_from(there), label="place"),
                    data.draw(st.sampled_from([..., *ODD]), label="value"),
                )
        file.write_text(json.dumps(document))
        exported = options(dataset=info)
        try:
            checkpoint = read_checkpoint(str(folder), exported, Path(name))
        except ConfigurationError as error:
            refusal = str(error)
        else:
            refusal = ""
            readable(describe(checkpoint, exported, "policy", described(checkpoint, exported)))
            readable(skeleton(checkpoint))
            model_card(checkpoint, exported, "policy", Verification((), (), (), 1e-4))
        assert refusal.isprintable()
