# SPDX-License-Identifier: Apache-2.0
"""Compare what is served from an export with LeRobot's own answers, from the raw camera picture to the robot's units.

LeRobot's side is computed first, so that its weights are gone before the same weights are loaded to be served.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reflex_core.concurrency.progress import report
from reflex_core.doctor.parity import FIXTURE, packed
from reflex_core.errors import ExportError
from reflex_core.export.export import Export, open_export
from reflex_core.files.atomic import atomic_write
from reflex_core.policy.base import Policy
from reflex_core.policy.load import load_policy
from reflex_core.values import Frame, Observation
from reflex_export.checkpoint import Checkpoint
from reflex_export.comparison.answers import Answer, answers
from reflex_export.comparison.batches import ALONE, batch_sizes
from reflex_export.comparison.batches import SIZES as BATCHES
from reflex_export.comparison.dataset_samples import dataset_samples
from reflex_export.comparison.differences import Tally
from reflex_export.comparison.samples import Floats, Sample, blackened, random_samples, takes
from reflex_export.families.base import Family
from reflex_export.families.names import (
    DENOISE,
    MONOLITHIC,
    NOISE,
    NOISY,
    PREFIX,
    STATE,
    TIME,
    TOKENS,
    TOKENS_MASK,
)
from reflex_export.families.table import family
from reflex_export.lerobot_policy import Loaded
from reflex_export.options import FP16, FP32, OBSERVATIONS, ExportOptions
from reflex_export.result import Difference, Verification

WORDS, IMAGES, STATES, OTHERS = "prompt tokens", "image inputs", "state input", "other inputs"
NORMALISED, PHYSICAL = "normalised chunk", "chunk in the robot's units"
STAGES = (WORDS, IMAGES, STATES, OTHERS, NORMALISED, PHYSICAL)
_STAGE_OF = {TOKENS: WORDS, TOKENS_MASK: WORDS, STATE: STATES}
# largest difference of the network's numbers that rounding makes; degrees and percent are that times their scale
ROUNDING = {FP32: 2e-5, FP16: 1e-2}
BLACKENED = 3  # of so many observations, the pictures of one are blackened, to see whether they matter


@dataclass(frozen=True, slots=True)
class Answers:
    """LeRobot's answers, and the versions of the libraries that made them. notes: on the observations, one sentence each."""

    answers: tuple[Answer, ...]
    versions: Mapping[str, str]
    notes: tuple[str, ...] = ()


def lerobot_answers(loaded: Loaded, checkpoint: Checkpoint, options: ExportOptions) -> Answers:
    """Return LeRobot's answers to seeded observations, and to some of the data set where one is named."""
    of_family = family(checkpoint.family)
    steps = _steps(of_family, loaded, checkpoint, options)
    count = options.observations_of(steps)
    recorded, why = dataset_samples(checkpoint, max(1, count // 2))
    taken = [sample for sample in recorded if takes(checkpoint, options, sample)]
    if len(taken) < len(recorded):
        why = (
            f"{len(recorded) - len(taken)} observations of the data set have images of another size than the policy takes, and were"
            " not compared"
        )
    samples = [*random_samples(checkpoint, options, count), *taken]
    made = answers(loaded, of_family, checkpoint, options, samples)
    notes = [why] if why else []
    if options.observations is None and count < OBSERVATIONS:
        notes.append(
            f"{count} random observations were compared, and not {OBSERVATIONS}, as each answer takes {steps} runs of the network:"
            f" --observations {OBSERVATIONS} compares more"
        )
    return Answers(tuple(made), loaded.versions, tuple(notes))


def _steps(of_family: Family, loaded: Loaded, checkpoint: Checkpoint, options: ExportOptions) -> int:
    """Return how often the network runs for one answer."""
    own = of_family.describe(checkpoint, options)
    known = of_family.describe_policy(loaded.policy, checkpoint, options)
    return int({**own, **known}.get("num_denoising_steps", 1))


def compare(
    theirs: Answers, checkpoint: Checkpoint, folder: Path, options: ExportOptions, why_alone: str
) -> Verification:
    """Serve the same observations from the folder, compare stage by stage, and write parity.npz.

    why_alone: why the graphs take one observation at a time, "" where they take any batch.
    Raises ExportError where the folder cannot be served, or gives arrays of another shape than LeRobot.
    """
    gc.collect()  # LeRobot's policies refer to themselves
    export = open_export(folder)
    policy = load_policy(_in_units_of_training(export), None, "cpu", 0)
    tolerance = _tolerance(policy, options)
    found = _Comparison(policy, checkpoint)
    for number, answer in enumerate(theirs.answers):
        report(number / len(theirs.answers), f"observation {number + 1} of {len(theirs.answers)}")
        found.add(answer)
    effect = found.effect_of_pictures(theirs.answers[::BLACKENED])
    cases = [_case(answer) for answer in theirs.answers]
    atomic_write(folder / FIXTURE, packed(export, cases, tolerance=tolerance))
    graphs = policy.export.config["graphs"]
    files = [folder / graphs[role] for role in (PREFIX, DENOISE, MONOLITHIC) if role in graphs]
    rows = [_graph_inputs(policy, answer) for answer in theirs.answers]
    del policy, found.policy  # before the graphs are opened once more
    sizes: tuple[int, ...] = ALONE
    if not why_alone:
        sizes, why_alone = batch_sizes(files, [rows[number % len(rows)] for number in range(max(BATCHES))])
    return Verification(
        observations=tuple(answer.sample.described for answer in theirs.answers),
        stages=found.stages(),
        joints=found.joints(),
        tolerance=tolerance,
        batch_sizes=sizes,
        picture_effect=effect,
        versions=theirs.versions,
        notes=(*theirs.notes, *([why_alone] if why_alone else [])),
    )


def _in_units_of_training(export: Export) -> Export:
    """Return the export as one whose numbers are not converted: LeRobot's are those of its training data."""
    return replace(export, config={**export.config, "units": "radians"})


def _tolerance(policy: Policy, options: ExportOptions) -> float:
    """Return the largest difference that counts as verified: the user's, else rounding in the robot's units."""
    statistics = policy.binding.action_statistics
    scale = 1.0 if statistics is None else float(np.abs(statistics.back).max(initial=0.0))
    if options.tolerance is not None:
        return options.tolerance
    return max(options.largest_difference, ROUNDING[options.dtype] * scale)


class _Comparison:
    """Both sides' numbers of every stage, added up over the observations."""

    def __init__(self, policy: Policy, checkpoint: Checkpoint) -> None:
        self.policy, self._checkpoint = policy, checkpoint
        units = checkpoint.robot.units
        units = units * checkpoint.action_dim if len(units) == 1 else units or ("",) * checkpoint.action_dim
        shared = units[0] if len(set(units)) == 1 else ""
        self._stages = {name: Tally(name, shared if name == PHYSICAL else "") for name in STAGES}
        self._joints = [Tally(name, unit) for name, unit in zip(checkpoint.joints, units, strict=True)]
        self._seen: set[str] = set()

    def add(self, answer: Answer) -> None:
        """Serve one observation and compare what was fed and what was made with LeRobot's."""
        policy, observation = self.policy, _observation(answer.sample)
        arrays, _ = policy.arrays(observation)
        if TOKENS_MASK in answer.entrance:  # what stands where no token is, is not looked at
            arrays[TOKENS] = arrays[TOKENS] * arrays[TOKENS_MASK]
        for name, theirs in answer.entrance.items():
            stage = IMAGES if name.startswith("img_") else _STAGE_OF.get(name, OTHERS)
            self._count(stage, f"input '{name}'", theirs, arrays[name])
        made = policy.predict(observation, 0, noise=answer.noise).normalised
        ours = made[0, policy.contract.first_row :, : self._checkpoint.action_dim]
        self._count(NORMALISED, "normalised chunk", answer.normalised, ours)
        physical = policy.positions(made, observation.state)
        self._count(PHYSICAL, "chunk", answer.physical, physical)
        for column, joint in enumerate(self._joints):
            joint.add(answer.physical[:, column], physical[:, column])

    def _count(self, stage: str, what: str, theirs: NDArray[Any], ours: NDArray[Any]) -> None:
        if theirs.shape != ours.shape:
            raise ExportError(
                f"{self.policy.export.path}: the {what} is {ours.shape} here and {theirs.shape} in LeRobot",
                "differs-from-lerobot",
            )
        self._seen.add(stage)
        self._stages[stage].add(theirs, ours)

    def effect_of_pictures(self, some: Sequence[Answer]) -> float | None:
        """Return the smallest change of an answer, in the robot's units, when its pictures are black; None without pictures."""
        if not any(not camera.empty for camera in self._checkpoint.cameras):
            return None
        return min(
            float(np.abs(self._served(blackened(answer.sample), answer.noise) - answer.physical).max())
            for answer in some
        )

    def _served(self, sample: Sample, noise: Floats) -> Floats:
        observation = _observation(sample)
        made = self.policy.predict(observation, 0, noise=noise)
        return self.policy.positions(made.normalised, observation.state)

    def stages(self) -> tuple[Difference, ...]:
        return tuple(tally.difference() for name, tally in self._stages.items() if name in self._seen)

    def joints(self) -> tuple[Difference, ...]:
        return tuple(tally.difference() for tally in self._joints)


def _observation(sample: Sample) -> Observation:
    """Return the newest moment of a sample as the robot would send it, with those before it."""
    moments = [
        Observation(
            {name: Frame(pixels, "rgb8", *pixels.shape[:2]) for name, pixels in pictures.items()},
            state if state.size else None,
            sample.instruction,
        )
        for pictures, state in zip(sample.pictures, sample.states, strict=True)
    ]
    return replace(moments[-1], history=tuple(moments[:-1]))


def _case(answer: Answer) -> dict[str, Any]:
    """Return the arrays of a parity fixture: the observation, the noise, and LeRobot's chunk."""
    sample, several = answer.sample, len(answer.sample.pictures) > 1
    seen: dict[str, Any] = {
        f"image.{camera}": np.stack([moment[camera] for moment in sample.pictures])
        for camera in sample.pictures[-1]
    }
    seen |= {"state": sample.states} if sample.states.size else {}
    case = {name: array if several else array[0] for name, array in seen.items()}
    return case | {
        "instruction": np.array(sample.instruction), "noise": answer.noise, "actions": answer.physical,
    }  # fmt: skip


def _graph_inputs(policy: Policy, answer: Answer) -> dict[str, NDArray[Any]]:
    """Return what the graphs of one inference take, with the first step's time and noise."""
    arrays, _ = policy.arrays(_observation(answer.sample))
    if not len(answer.noise):
        return arrays
    sampler, flow = policy.contract.sampler, policy.contract.flow
    time = flow.at(0, flow.steps) if sampler is None else sampler.rows[0].time
    start = answer.noise[:1]
    return arrays | {NOISY: start, NOISE: start, TIME: np.array([time])}
