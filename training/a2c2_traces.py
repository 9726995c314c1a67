# SPDX-License-Identifier: Apache-2.0
"""Recorded traces become data for the correction head: what the policy said at one moment, and what it said later.

A request counts when it counts for a dataset (reflex_core/dataset/examples.py), belongs to an episode, has a sensor stamp,
and was recorded with its images (`--record-images full`). The chunks are those of the network, before any correction and before the guard.

    python -m training.a2c2_traces models/reach_panda TRACE... --out traces.npz
    python -m training.a2c2 --data train.npz traces.npz --held-out held_out.npz --out a2c2.npz
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from reflex_core.chunks.a2c2.features import hues
from reflex_core.dataset.examples import why_unfit
from reflex_core.images.raw_encodings import rgb
from reflex_core.policy.base import Policy
from reflex_core.records.trace.parse import Recorded
from reflex_core.records.trace.reader import TraceReader
from reflex_core.values import Floats
from training.a2c2_data import Moments, joined, open_policy, save


def usable(record: Recorded, policy: Policy) -> bool:
    """True for a request whose chunk and observation are both whole."""
    camera = next(iter(policy.binding.cameras.values()))
    image = record.images.get(camera)
    return (
        not why_unfit(record)
        and record.episode_id is not None
        and record.stamp_ns > 0
        and record.raw_actions.shape == (policy.binding.horizon, len(policy.binding.action_names))
        and image is not None
        and image.text is not None
    )


def episode_moments(records: list[Recorded], policy: Policy) -> Moments:
    """The moments of one episode. Rows count from its first stamp, to the nearest control step."""
    binding = policy.binding
    assert binding.state_statistics is not None  # the embedded policy has both
    assert binding.action_statistics is not None
    camera = next(iter(binding.cameras.values()))
    records = sorted(records, key=lambda record: record.stamp_ns)
    since_s = np.array([record.stamp_ns - records[0].stamp_ns for record in records]) * 1e-9
    rows = np.round(since_s / binding.dt_s).astype(np.int64)
    states = np.array([record.state for record in records])
    previous: list[Floats] = [states[0]]
    for index, before in enumerate(records[:-1]):
        last_row = min(max(int(rows[index + 1] - rows[index]) - 1, 0), len(before.actions) - 1)
        previous.append(before.actions[last_row])
    frames = [record.images[camera].frame() for record in records]
    chunks = binding.action_statistics.normalise(np.array([record.raw_actions for record in records]))
    return Moments(
        binding.state_statistics.normalise(states), binding.action_statistics.normalise(np.array(previous)),
        np.array([hues(np.ascontiguousarray(rgb(frame))) for frame in frames if frame is not None]),
        chunks, chunks,  # nobody demonstrates what would be right
        np.array([record.instruction for record in records]), np.zeros_like(rows), rows,
    )  # fmt: skip


def read_traces(paths: Iterable[Path], policy: Policy) -> tuple[Moments, int]:
    """(the moments of all traces, how many requests could not be used). Raises ValueError where none could."""
    episodes: dict[tuple[Path, str], list[Recorded]] = {}
    left_out = 0
    for path in paths:
        with TraceReader(path) as reader:
            for record in reader:
                if usable(record, policy):
                    episodes.setdefault((path, str(record.episode_id)), []).append(record)
                else:
                    left_out += 1
    if not episodes:
        raise ValueError(
            f"none of the {left_out} requests can be used: expected answers of the policy with episode_id, stamp and"
            " images, as recorded with --record-images full from ROS topics"
        )
    return joined([episode_moments(records, policy) for records in episodes.values()]), left_out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("export", type=Path)
    parser.add_argument("traces", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    moments, left_out = read_traces(arguments.traces, open_policy(arguments.export))
    save(moments, arguments.out)
    print(f"{len(moments.rows)} moments, {left_out} requests left out")


if __name__ == "__main__":
    main()
