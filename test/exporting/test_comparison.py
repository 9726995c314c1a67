# SPDX-License-Identifier: Apache-2.0
"""What is served from a folder is compared with other answers stage by stage, and whatever differs shows where it begins."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from checkpoint_folders import JOINTS, checkpoint_folder, options
from checkpoint_graphs import small_side

from reflex_core.doctor.finding import FAIL, OK
from reflex_core.doctor.parity import FIXTURE, parity
from reflex_core.errors import ExportError
from reflex_core.export.export import open_export
from reflex_core.policy.load import load_policy
from reflex_core.policy.sampler import start_noise
from reflex_core.values import Frame, Observation
from reflex_export import verification
from reflex_export.checkpoint import Checkpoint
from reflex_export.comparison.answers import Answer
from reflex_export.comparison.samples import SIZES, Sample, blackened, random_samples
from reflex_export.export import run
from reflex_export.folder.read_folder import read_checkpoint
from reflex_export.options import ExportOptions
from reflex_export.result import Verification
from reflex_export.verification import IMAGES, NORMALISED, PHYSICAL, STATES, WORDS, Answers, compare

Change = Callable[[Answer], Answer]
EXPORTED: dict[str, dict[str, Any]] = {
    "act": {}, "diffusion": {"fps": 30.0}, "smolvla": {}, "pi05": {}, "pi0": {}
}  # fmt: skip


class Exported:
    """One export with small graphs, and what it answers itself in the place of LeRobot."""

    def __init__(self, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **given: Any) -> None:
        monkeypatch.setattr("reflex_export.export.LIBRARIES", ())
        self.options: ExportOptions = options(**given)
        source = checkpoint_folder(tmp_path / "policy", family)
        self.folder = tmp_path / "out"
        run(str(source), self.folder, self.options, print, lambda *_: None, small_side)
        work = tmp_path / "work"
        work.mkdir()
        self.checkpoint: Checkpoint = read_checkpoint(str(source), self.options, work)
        self.answers = Answers(tuple(self._answers()), {"lerobot": "0.6.1"})

    def _answers(self) -> list[Answer]:
        export = open_export(self.folder)
        plain = replace(export, config={**export.config, "units": "radians"})
        policy = load_policy(plain, None, "cpu", 1)
        found = []
        for number, sample in enumerate(random_samples(self.checkpoint, self.options, 2)):
            seen, noise = observation(sample), start_noise(number, policy.noise_shape)
            made = policy.predict(seen, 0, noise=noise).normalised
            arrays, _ = policy.arrays(seen)
            known = {name: array for name, array in arrays.items() if name in policy.contract.described}
            if "lang_masks" in known:  # LeRobot pads with other tokens, which are masked
                known["lang_tokens"] = known["lang_tokens"] * known["lang_masks"]
            rows = made[0, policy.contract.first_row :, : self.checkpoint.action_dim]
            found.append(Answer(sample, noise, known, rows, policy.positions(made, seen.state)))
        return found

    def compared(self, change: Change | None = None) -> Verification:
        """The comparison with the answers, of which `change` makes other ones."""
        theirs = self.answers
        if change is not None:
            theirs = replace(theirs, answers=tuple(map(change, theirs.answers)))
        return compare(theirs, self.checkpoint, self.folder, self.options, "they are small")


def observation(sample: Sample) -> Observation:
    moments = [
        Observation(
            {camera: Frame(pixels, "rgb8", *pixels.shape[:2]) for camera, pixels in moment.items()},
            state,
            sample.instruction,
        )
        for moment, state in zip(sample.pictures, sample.states, strict=True)
    ]
    return replace(moments[-1], history=tuple(moments[:-1]))


@pytest.fixture
def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Exported]:
    return lambda family, **given: Exported(family, tmp_path, monkeypatch, **EXPORTED[family] | given)


@pytest.mark.parametrize("family", EXPORTED)
def test_an_export_that_answers_alike_is_verified_and_can_be_checked_again(
    family: str, exported: Callable[..., Exported]
) -> None:
    made = exported(family)
    found = made.compared()
    assert (found.verified, found.max_abs) == (True, 0.0)
    assert [joint.name for joint in found.joints] == list(made.checkpoint.joints)
    assert all(joint.cosine == pytest.approx(1) for joint in found.joints)
    names = [stage.name for stage in found.stages]
    assert names[-2:] == [NORMALISED, PHYSICAL]
    assert (WORDS in names) == (made.checkpoint.tokenizer is not None)
    assert found.notes == ("they are small",)
    again = parity(load_policy(open_export(made.folder), None, "cpu", 1))
    assert again.level == OK, again
    assert "of 2 observations 0.0e+00" in again.said


def moved(**changes: Callable[[np.ndarray], np.ndarray]) -> Change:
    """A change of fields of an answer, or of the inputs of its network, by their names."""

    def change(answer: Answer) -> Answer:
        entrance = {
            name: changes[name](array) if name in changes else array
            for name, array in answer.entrance.items()
        }
        fields = {
            name: how(getattr(answer, name))
            for name, how in changes.items()
            if name in ("normalised", "physical")
        }
        return replace(answer, entrance=entrance, **fields)

    return change


@pytest.mark.parametrize(
    ("stage", "change"),
    [
        (IMAGES, moved(img_wrist=lambda picture: picture + np.float32(0.5))),
        (STATES, moved(state=lambda state: state * 2 + 1)),
        (WORDS, moved(lang_tokens=lambda tokens: tokens[:, ::-1])),
        (NORMALISED, moved(normalised=lambda rows: rows + 1)),
    ],
)
def test_the_stage_where_it_begins_is_named(
    stage: str, change: Change, exported: Callable[..., Exported]
) -> None:
    found = exported("smolvla").compared(change)
    assert [one.name for one in found.stages if one.max_abs > 0] == [stage]


def test_a_joint_that_differs_is_named_and_nothing_is_verified(exported: Callable[..., Exported]) -> None:
    made = exported("act")
    apart = np.zeros(len(JOINTS), np.float32)
    apart[3] = 1e-3
    found = made.compared(moved(physical=lambda rows: rows + apart))
    assert not found.verified
    assert found.max_abs == pytest.approx(1e-3, rel=1e-2)
    assert [joint.name for joint in found.joints if joint.max_abs > 0] == [made.checkpoint.joints[3]]
    assert parity(load_policy(open_export(made.folder), None, "cpu", 1)).level == FAIL


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_is_no_number_is_never_verified(number: float, exported: Callable[..., Exported]) -> None:
    def broken(rows: np.ndarray) -> np.ndarray:
        rows = rows.copy()
        rows[0, 0] = number
        return rows

    assert not exported("act").compared(moved(physical=broken)).verified


def test_a_chunk_of_another_length_is_refused(exported: Callable[..., Exported]) -> None:
    with pytest.raises(ExportError, match=r"the normalised chunk is \(50, 6\) here and \(49, 6\) in LeRobot"):
        exported("act").compared(moved(normalised=lambda rows: rows[1:]))


def test_degrees_have_the_tolerance_of_their_scale(exported: Callable[..., Exported], tmp_path: Path) -> None:
    made = exported("act", units=("degrees",))
    assert made.compared().tolerance == 1e-4
    back = made.checkpoint.normalization.action
    assert back is not None
    file = next(made.folder.glob("policy_postprocessor*.safetensors"))
    from safetensors.numpy import load_file, save_file

    save_file({name: array * np.float32(100) for name, array in load_file(file).items()}, file)
    wide = replace(made.options, tolerance=None)
    made.options = wide
    found = made.compared(moved(physical=lambda rows: rows))
    assert found.tolerance == pytest.approx(2e-3 * back.back.max(), rel=1e-3)
    made.options = replace(wide, tolerance=0.5)
    assert made.compared().tolerance == 0.5


def test_pictures_that_the_network_does_not_look_at_are_noticed(exported: Callable[..., Exported]) -> None:
    made = exported("act")
    effect = made.compared().picture_effect
    assert effect is not None
    assert effect > 0
    made.answers = replace(
        made.answers,
        answers=tuple(replace(answer, sample=blackened(answer.sample)) for answer in made.answers.answers),
    )
    blind = made.compared()
    # their answers are to other pictures than those that are blackened here
    assert blind.picture_effect == pytest.approx(effect)


def test_samples_are_seeded_of_many_shapes_and_within_what_training_saw(tmp_path: Path) -> None:
    given = options(seed=4)
    checkpoint = read_checkpoint(str(checkpoint_folder(tmp_path / "policy", "smolvla")), given, tmp_path)
    made = list(random_samples(checkpoint, given, 6))
    assert [next(iter(one.pictures[0].values())).shape[:2] for one in made] == list(SIZES)
    assert [set(one.pictures[0]) for one in made] == [{"top", "wrist"}] * 6
    again = list(random_samples(checkpoint, given, 6))
    for one, same in zip(made, again, strict=True):
        np.testing.assert_array_equal(one.states, same.states)
        np.testing.assert_array_equal(one.pictures[0]["top"], same.pictures[0]["top"])
    statistics = checkpoint.normalization.state
    assert statistics is not None
    assert all(np.abs(statistics.normalise(one.states)).max() <= 1.0001 for one in made)
    assert len({one.states.tobytes() for one in made}) == 6


@pytest.mark.parametrize(("steps", "count"), [(1, 6), (10, 6), (33, 6), (50, 4), (100, 2), (1000, 2)])
def test_fewer_observations_are_compared_of_a_policy_whose_network_runs_often(steps: int, count: int) -> None:
    assert options().observations_of(steps) == count
    assert options(observations=9).observations_of(steps) == 9


@pytest.mark.parametrize(("steps", "given", "noted"), [(100, None, True), (10, None, False), (100, 2, False)])
def test_the_page_says_that_they_are_fewer(
    steps: int, given: int | None, noted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[Sample] = []
    monkeypatch.setattr(verification, "answers", lambda *of: compared.extend(of[-1]) or ())
    known = SimpleNamespace(
        describe=lambda *_: {"num_denoising_steps": 3},
        describe_policy=lambda *_: {"num_denoising_steps": steps},
    )
    chosen = options(observations=given)
    checkpoint = read_checkpoint(str(checkpoint_folder(tmp_path / "policy", "smolvla")), chosen, tmp_path)
    monkeypatch.setattr(verification, "family", lambda _: known)
    loaded: Any = SimpleNamespace(policy=None, versions={})
    found = verification.lerobot_answers(loaded, checkpoint, chosen)
    assert len(compared) == chosen.observations_of(steps)
    few = "2 random observations were compared, and not 6, as each answer takes 100 runs of the network"
    assert any(few in note for note in found.notes) == noted


def test_policies_of_one_picture_size_get_that_and_a_history_as_long_as_they_see(tmp_path: Path) -> None:
    given = options()
    checkpoint = read_checkpoint(str(checkpoint_folder(tmp_path / "policy", "diffusion")), given, tmp_path)
    for sample in random_samples(checkpoint, given, 3):
        assert len(sample.pictures) == len(sample.states) == checkpoint.observation_steps == 2
        assert {picture.shape for moment in sample.pictures for picture in moment.values()} == {(480, 640, 3)}
        assert sample.pictures[0]["top"].tobytes() != sample.pictures[1]["top"].tobytes()


def test_the_fixture_is_small_though_pictures_are_large(exported: Callable[..., Exported]) -> None:
    made = exported("act")
    made.compared()
    assert (made.folder / FIXTURE).stat().st_size < 400_000
    document = json.loads((made.folder / "reflex_config.json").read_text())
    assert document["model_type"] == "act"
