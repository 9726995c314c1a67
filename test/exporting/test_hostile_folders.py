# SPDX-License-Identifier: Apache-2.0
"""Whatever stands in the JSON of a checkpoint: it is read and described, or refused in one sentence; nothing else happens."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from checkpoint_folders import AFTER, BEFORE, CONFIG, DATASET, FAMILIES, checkpoint_folder, options
from checkpoint_graphs import described
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd_json import ODD, places, put

from reflex_core.errors import ConfigurationError
from reflex_export.documents.description import describe
from reflex_export.documents.embodiment_skeleton import skeleton
from reflex_export.documents.model_card import model_card
from reflex_export.documents.readable_json import readable
from reflex_export.folder.read_folder import read_checkpoint
from reflex_export.result import Verification

DATA_SET = "info.json"


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
