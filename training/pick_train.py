# SPDX-License-Identifier: Apache-2.0
"""Trains the picking policy in four stages, each on one thread for a fixed number of iterations.

    see    image and words -> which cube, where (its own process)
    act    where and state -> chunk (its own process, beside `see`)
    merge  the two halves in one network
    joint  everything on the flow loss, from frames of the demonstrator and of the merged policy (DAgger)

`see` and `act` need each other for nothing, so that two cores train both at a time.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from reflex_ros.demo.pick_arm import build_pick_model
from reflex_ros.demo.pick_scene import CUBE_AREA_M, CUBE_HALF_SIZE_M, FINGER_OPEN_M
from training.language import build_tokenizer, encode
from training.pick_data import COLOUR_NAMES, Frames, load_frames
from training.pick_demonstrator import demonstrate_pick, is_held
from training.pick_language import pick_vocabulary, sample_pick_instruction
from training.pick_model import SIDE, PickNetwork, smooth
from training.train import cosine_rate, detection_loss

PLACE_CENTRE_M, PLACE_UNIT_M = np.array([0.5, 0.0, 0.1]), 0.1
MINIMUM_STD_RAD = 0.05
BRIGHTNESS, CHANNEL_GAIN = (0.75, 1.15), (0.94, 1.06)
EMA_DECAY = 0.998
WEIGHT_DECAY, BETAS, CLIPPED_NORM = 1e-3, (0.9, 0.98), 1.0
FLOOR = 0.02  # of the learning rate at the end
HELD_OUT_SHARE = 40  # one frame in so many is kept to validate `see`
SEE_IMAGES, SEE_RATE = 24, 2e-3
ACT_BATCH, ACT_RATE = 64, 2e-3
JOINT_IMAGES, JOINT_PER_IMAGE, JOINT_RATE, JOINT_WARM_UP, OWN_SHARE = 24, 2, 8e-4, 50, 0.4
WARM_UP = 60
REPORT_EVERY, SAVE_EVERY = 50, 200
ELSEWHERE_SHARE, NEAR_SHARE, NEAR_STD_M, LOST_SHARE = 0.3, 0.2, 0.02, 0.5
LIFTED_WEIGHT = 0.2  # of the place of a cube that the fingers hide

Statistics = tuple[NDArray[np.float64], NDArray[np.float64]]


def new_network() -> PickNetwork:
    network = PickNetwork(len(pick_vocabulary()), len(COLOUR_NAMES))
    network.prefix.stem.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def place_of(points_m: NDArray[np.float64]) -> Tensor:
    """Return normalised places of points [..., 3] in m."""
    return torch.from_numpy(((points_m - PLACE_CENTRE_M) / PLACE_UNIT_M).astype(np.float32))


def statistics_of(frames: Frames) -> Statistics:
    """Return mean and std (8,), for state and action alike; the std is that of the motion away from the state."""
    motion = []
    for start in range(0, len(frames), 2000):
        rows = slice(start, start + 2000)
        cubes = frames.cubes_m[rows][np.arange(len(frames.targets[rows])), frames.targets[rows]]
        chunk = demonstrate_pick(
            frames.joints_rad[rows], frames.end_effector_m[rows], frames.finger_m[rows], cubes
        )
        motion.append(chunk[..., :7] - frames.joints_rad[rows][:, None])
    std = np.maximum(np.concatenate(motion).std((0, 1)), MINIMUM_STD_RAD)
    half = FINGER_OPEN_M / 2
    return np.append(frames.joints_rad.mean(0), half), np.append(std, half)


def project(points_m: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the image position [..., 2] (column, row), in image tokens, of points [..., 3] in m."""
    model = build_pick_model()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    camera = model.camera("policy").id
    seen = (points_m - data.cam_xpos[camera]) @ data.cam_xmat[camera].reshape(3, 3)
    focal = 0.5 / math.tan(math.radians(model.cam_fovy[camera]) / 2)
    column = 0.5 + focal * seen[..., 0] / -seen[..., 2]
    row = 0.5 - focal * seen[..., 1] / -seen[..., 2]
    return np.stack([column, row], axis=-1) * SIDE


class PickSampler:
    """Draws training batches; every random number comes from one seeded generator."""

    def __init__(self, frames: Frames, seed: int) -> None:
        self.frames = frames
        self.generator = np.random.default_rng(seed)
        self.tokenizer = build_tokenizer(pick_vocabulary())
        self.projected = project(frames.cubes_m)
        held = is_held(frames.finger_m)
        self.free_hand = (frames.finger_m > FINGER_OPEN_M - 0.003) & ~held

    def images(self, rows: NDArray[np.int64], *, varied: bool = True) -> Tensor:
        """Return float [N, 3, 112, 112] in [-1, 1], in a light of its own each where varied."""
        image = torch.from_numpy(self.frames.images[rows]).permute(0, 3, 1, 2).float()
        if varied:
            gain = self.generator.uniform(*BRIGHTNESS, (len(rows), 1, 1, 1))
            gain = gain * self.generator.uniform(*CHANNEL_GAIN, (len(rows), 3, 1, 1))
            image = (image * torch.from_numpy(gain.astype(np.float32))).clamp(0, 255)
        return image.div(127.5).sub(1).contiguous(memory_format=torch.channels_last)

    def detection(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor, NDArray[np.int64]]:
        """Return per image token a class [N, 49] (0 none, 1.. colour) and the cube's offset [N, 49, 2], and per cube [N, 3]
        the token it lies in.
        """
        place = self.projected[rows]
        cell = np.clip(np.floor(place), 0, SIDE - 1)
        token = (cell[..., 1] * SIDE + cell[..., 0]).astype(np.int64)
        classes, offsets = (
            np.zeros((len(rows), SIDE * SIDE), np.int64),
            np.zeros((len(rows), SIDE * SIDE, 2), np.float32),
        )
        image = np.arange(len(rows))[:, None]
        classes[image, token] = 1 + self.frames.colours[rows]
        offsets[image, token] = place - cell - 0.5
        return torch.from_numpy(classes), torch.from_numpy(offsets), token

    def sentences(self, rows: NDArray[np.int64], cubes: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return lang_tokens and lang_masks, cut to the longest sentence, of instructions that name these cubes."""
        texts = [
            sample_pick_instruction(COLOUR_NAMES[colour], self.generator)
            for colour in self.frames.colours[rows, cubes]
        ]
        ids, mask = encode(self.tokenizer, texts)
        longest = int(mask.sum(1).max())
        return torch.from_numpy(ids[:, :longest]), torch.from_numpy(mask[:, :longest])

    def meant(self, rows: NDArray[np.int64], per_image: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return rows and cubes, `per_image` for each row: the episode's own cube first, others only for an empty open hand."""
        rows = np.repeat(rows, per_image)
        cubes = self.frames.targets[rows].copy()
        others = self.free_hand[rows] & (np.arange(len(rows)) % per_image > 0)
        cubes[others] = (cubes[others] + self.generator.integers(1, 3, int(others.sum()))) % 3
        return rows, cubes


class Averaged:
    """A network in training, its optimiser, and the moving average of its weights, which is what is kept."""

    def __init__(self, network: nn.Module, parameters: list[nn.Parameter], rate: float, iterations: int, warm_up: int) -> None:  # fmt: skip
        self.network, self.average = network, copy.deepcopy(network)
        self._parameters, self._rate, self._iterations, self._warm_up = parameters, rate, iterations, warm_up
        self._optimiser = torch.optim.AdamW(parameters, rate, weight_decay=WEIGHT_DECAY, betas=BETAS)

    def step(self, iteration: int, loss: Tensor) -> None:
        rate = cosine_rate(self._rate, iteration, self._iterations, self._warm_up, FLOOR)
        self._optimiser.param_groups[0]["lr"] = rate
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self._parameters, CLIPPED_NORM)
        self._optimiser.step()
        decay = min(EMA_DECAY, (1 + iteration) / (10 + iteration))
        with torch.no_grad():
            for kept, new in zip(self.average.parameters(), self.network.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)


class Report:
    """Prints the means of the named losses every REPORT_EVERY iterations."""

    def __init__(self, stage: str, iterations: int, **_: Any) -> None:
        self._stage, self._iterations, self._sums = stage, iterations, dict[str, float]()
        self._started_s = time.monotonic()

    def add(self, iteration: int, **losses: Tensor) -> None:
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.item() / REPORT_EVERY
        if (iteration + 1) % REPORT_EVERY == 0:
            means = " ".join(f"{name} {value:.4f}" for name, value in self._sums.items())
            spent = f"cpu {time.process_time():.0f} s wall {time.monotonic() - self._started_s:.0f} s"
            print(f"{self._stage} {iteration + 1}/{self._iterations} {spent} {means}", flush=True)
            self._sums.clear()


def save(path: Path, network: PickNetwork, statistics: Statistics | None, note: str = "") -> None:
    stored = {
        "weights": network.state_dict(),
        "statistics": None if statistics is None else [part.tolist() for part in statistics],
        "note": note,
    }
    part = path.with_name(f"part-{path.name}")
    torch.save(stored, part)
    part.rename(path)


def load(path: Path) -> tuple[PickNetwork, dict[str, Any]]:
    """Return the network and what was stored beside its weights."""
    stored = torch.load(path, weights_only=True)
    network = new_network()
    network.load_state_dict(stored["weights"])
    return network, stored


def train_see(frames: Frames, iterations: int, seed: int, out: Path) -> None:
    sampler, count = PickSampler(frames, seed), len(frames)
    known = count - count // HELD_OUT_SHARE
    network = new_network()
    training = Averaged(network, list(network.prefix.parameters()), SEE_RATE, iterations, WARM_UP)
    report, prefix = Report("see", iterations), network.prefix
    for iteration in range(iterations):
        images = sampler.generator.integers(0, known, SEE_IMAGES)
        rows = np.repeat(images, 3)
        cubes = np.concatenate([sampler.generator.permutation(3) for _ in images])
        seen = prefix.see(sampler.images(images))
        classes, offsets, tokens = sampler.detection(images)
        detection = detection_loss(prefix, seen, classes, offsets)
        *_, place, logits = prefix.read(seen, *sampler.sentences(rows, cubes))
        miss = smooth(place, place_of(frames.cubes_m[rows, cubes])).mean()
        token = torch.from_numpy(np.repeat(tokens, 3, axis=0)[np.arange(len(rows)), cubes])
        choice = functional.cross_entropy(logits, token)
        training.step(iteration, 4 * miss + 0.3 * choice + detection)
        report.add(iteration, place=miss, choice=choice, detection=detection)
        if (iteration + 1) % SAVE_EVERY == 0 or iteration + 1 == iterations:
            note = validate_see(training.average, sampler, np.arange(known, count))
            print(note, flush=True)
            if iteration + 1 == iterations:
                save(out, training.average, None, note)


@torch.no_grad()
def validate_see(network: PickNetwork, sampler: PickSampler, rows: NDArray[np.int64]) -> str:
    """Return one line: how far the place pointed at is from the named cube on frames that were kept apart."""
    frames, found = sampler.frames, []
    for start in range(0, len(rows), 50):
        some = rows[start : start + 50]
        words = sampler.sentences(some, frames.targets[some])
        seen = network.prefix.see(sampler.images(some, varied=False))
        found.append(network.prefix.read(seen, *words)[3].numpy() * PLACE_UNIT_M + PLACE_CENTRE_M)
    truth = frames.cubes_m[rows, frames.targets[rows]]
    on_table = truth[:, 2] < CUBE_HALF_SIZE_M + 0.01
    miss_cm = 100 * np.linalg.norm(np.concatenate(found) - truth, axis=1)[on_table]
    if len(miss_cm) == 0:
        return "no frame was kept apart"
    median, p90, p99 = np.quantile(miss_cm, (0.5, 0.9, 0.99))
    return f"kept-apart frames {on_table.sum()}: place of the named cube on the table, miss median {median:.2f} cm p90 {p90:.2f} cm p99 {p99:.2f} cm"


def believed_cubes(
    sampler: PickSampler, rows: NDArray[np.int64], free: NDArray[np.bool_], held: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return places [N, 3] of the cube to pick up: mostly the true one, else anywhere, or close to the hand.

    Where the fingers hold a cube half of the places are elsewhere: they must not matter then.
    """
    frames, generator, count = sampler.frames, sampler.generator, len(rows)
    cubes = frames.cubes_m[rows, frames.targets[rows]].copy()
    anywhere = np.column_stack([generator.uniform(*np.transpose(CUBE_AREA_M), (count, 2)), np.full(count, CUBE_HALF_SIZE_M)])  # fmt: skip
    draw = generator.random(count)
    elsewhere = free & (draw < ELSEWHERE_SHARE)
    cubes[elsewhere] = anywhere[elsewhere]
    near = free & (draw > 1 - NEAR_SHARE)
    beside = frames.end_effector_m[rows, :2] + generator.normal(0.0, NEAR_STD_M, (count, 2))
    cubes[near] = np.column_stack([beside, np.full(count, CUBE_HALF_SIZE_M)])[near]
    lost = held & (draw < LOST_SHARE)
    anywhere[:, 2] = generator.uniform(CUBE_HALF_SIZE_M, 0.2, count)
    cubes[lost] = anywhere[lost]
    return cubes


def flow_batch(generator: np.random.Generator, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return noisy actions, their times [N] and the velocity to learn."""
    noise = torch.from_numpy(generator.standard_normal(actions.shape).astype(np.float32))
    timestep = torch.from_numpy(generator.beta(1.5, 1.0, len(actions)).astype(np.float32)) * 0.999 + 0.001
    t = timestep[:, None, None]
    return t * noise + (1 - t) * actions, timestep, noise - actions


def normaliser(statistics: Statistics) -> Callable[[NDArray[np.float64]], Tensor]:
    mean, std = statistics
    return lambda values: torch.from_numpy(((values - mean) / std).astype(np.float32))


def states_of(frames: Frames, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.column_stack([frames.joints_rad[rows], frames.finger_m[rows]])


def train_act(frames: Frames, iterations: int, seed: int, out: Path) -> None:
    sampler, statistics = PickSampler(frames, seed), statistics_of(frames)
    held, normalise = is_held(frames.finger_m), normaliser(statistics)
    print(f"{len(frames)} frames, std {np.round(statistics[1], 3).tolist()}", flush=True)
    network = new_network()
    prefix, expert = network.prefix, network.expert
    parameters = [*expert.parameters(), *prefix.place_token.parameters(), *prefix.place_keys.parameters()]
    training, report = Averaged(network, parameters, ACT_RATE, iterations, WARM_UP), Report("act", iterations)
    for iteration in range(iterations):
        rows = sampler.generator.integers(0, len(frames), ACT_BATCH)
        cubes = believed_cubes(sampler, rows, sampler.free_hand[rows], held[rows])
        hand = frames.end_effector_m[rows]
        actions = normalise(demonstrate_pick(frames.joints_rad[rows], hand, frames.finger_m[rows], cubes))
        state = normalise(states_of(frames, rows))
        layers = prefix.keys_of_place(place_of(cubes))
        keys, values = (torch.stack([layer[part] for layer in layers]) for part in (0, 1))
        noisy, timestep, wanted = flow_batch(sampler.generator, actions)
        velocity = expert(noisy, timestep, keys, values, torch.ones(len(rows), 1), state)
        squared = (velocity - wanted) ** 2
        hand_miss = smooth(expert.guess_hand(state), place_of(hand)).mean()
        training.step(iteration, squared.mean() + 0.3 * hand_miss)
        report.add(iteration, flow=squared.mean(), finger=squared[..., 7].mean(), hand=hand_miss)
    save(out, training.average, statistics)


def merge(see: Path, act: Path, out: Path) -> None:
    """Put the prefix of one and the expert, with what makes the pointing token's keys, of the other into one network."""
    network, stored = load(act)
    of_act = {
        name: value
        for name, value in stored["weights"].items()
        if name.startswith(("expert.", "prefix.place_token.", "prefix.place_keys."))
    }
    network.load_state_dict({**torch.load(see, weights_only=True)["weights"], **of_act})
    network.prefix.visible.fill_(0.0)
    mean, std = stored["statistics"]
    save(out, network, (np.array(mean), np.array(std)))


def train_joint(frames: Frames, own: int, iterations: int, seed: int, start: Path, out: Path) -> None:
    """own: how many of the last frames are the policy's own; OWN_SHARE of the batches are of them alone."""
    network, stored = load(start)
    network.prefix.visible.fill_(1.0)
    mean, std = stored["statistics"]
    statistics = (np.array(mean), np.array(std))
    sampler, normalise = PickSampler(frames, seed), normaliser(statistics)
    training = Averaged(network, list(network.parameters()), JOINT_RATE, iterations, JOINT_WARM_UP)
    report, prefix, generator = Report("joint", iterations), network.prefix, sampler.generator
    for iteration in range(iterations):
        first = len(frames) - own if generator.random() < OWN_SHARE else 0
        images = generator.integers(first, len(frames), JOINT_IMAGES)
        rows, cubes = sampler.meant(images, JOINT_PER_IMAGE)
        seen = prefix.see(sampler.images(images))
        classes, offsets, tokens = sampler.detection(images)
        detection = detection_loss(prefix, seen, classes, offsets)
        past_k, past_v, pad, place, logits = prefix.read(seen, *sampler.sentences(rows, cubes))
        truth = frames.cubes_m[rows, cubes]
        weight = torch.from_numpy(np.where(truth[:, 2] > 0.04, LIFTED_WEIGHT, 1.0).astype(np.float32))
        miss = (smooth(place, place_of(truth)) * weight).mean()
        token = torch.from_numpy(np.repeat(tokens, JOINT_PER_IMAGE, axis=0)[np.arange(len(rows)), cubes])
        choice = functional.cross_entropy(logits, token)
        hand = frames.end_effector_m[rows]
        actions = normalise(demonstrate_pick(frames.joints_rad[rows], hand, frames.finger_m[rows], truth))
        state = normalise(states_of(frames, rows))
        noisy, timestep, wanted = flow_batch(generator, actions)
        flow = functional.mse_loss(network.expert(noisy, timestep, past_k, past_v, pad, state), wanted)
        hand_miss = smooth(network.expert.guess_hand(state), place_of(hand)).mean()
        training.step(iteration, flow + 4 * miss + 0.2 * choice + 0.5 * detection + 0.3 * hand_miss)
        report.add(iteration, flow=flow, place=miss, choice=choice, detection=detection, hand=hand_miss)
        if (iteration + 1) % SAVE_EVERY == 0 and iteration + 1 < iterations:
            save(out.with_name(f"{out.stem}-{iteration + 1}.pt"), training.average, statistics)
    save(out, training.average, statistics)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=("see", "act", "merge", "joint"))
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="frames of the demonstrator")
    parser.add_argument("--own", type=Path, nargs="+", default=[], help="joint: frames of the policy itself")
    parser.add_argument(
        "--start", type=Path, nargs="+", default=[], help="joint: weights; merge: those of see and act"
    )
    parser.add_argument("--iterations", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # Tiny optimiser moments become denormal numbers, which are many times slower on a CPU.
    torch.set_flush_denormal(True)
    torch.manual_seed(arguments.seed)
    if arguments.stage == "merge":
        merge(*arguments.start, arguments.out)
        return
    frames = load_frames([*arguments.data, *arguments.own])
    if arguments.stage == "joint":
        own = len(load_frames(arguments.own))
        train_joint(frames, own, arguments.iterations, arguments.seed, arguments.start[0], arguments.out)
    else:
        train = train_see if arguments.stage == "see" else train_act
        train(frames, arguments.iterations, arguments.seed, arguments.out)


if __name__ == "__main__":
    main()
