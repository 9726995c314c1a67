# SPDX-License-Identifier: Apache-2.0
"""Requests and answers to record, and a disk that is really full."""

from __future__ import annotations

import json
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from reflex_core.values import ActionChunk, Frame, Inference, Observation, Request, Served

NAMES = tuple(f"panda_joint{number}" for number in range(1, 8))


def picture(size: int = 32, seed: int = 0) -> np.ndarray:
    """(size, size, 3) uint8: smooth, with a little noise, as cameras see."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (8, 8, 3)).astype(np.float32)
    smooth = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + rng.normal(0, 3, smooth.shape), 0, 255).astype(np.uint8)


def jpeg(size: int = 32, seed: int = 0) -> bytes:
    return bytes(cv2.imencode(".jpg", picture(size, seed), [cv2.IMWRITE_JPEG_QUALITY, 85])[1])


def make_request(
    number: int = 1, *, instruction: str = "pick up the red cup", frames: dict[str, Frame] | None = None
) -> Request:
    """A request of one camera and seven joints."""
    state = np.random.default_rng(number).normal(size=7).astype(np.float32)
    cameras = {"base": Frame(jpeg(seed=number), "jpeg", 32, 32)} if frames is None else frames
    observation = Observation(cameras, state, instruction, stamp_ns=1_000_000_000 + number, age_ms=4.25)
    return Request(observation, received_ns=0, request_id=f"r-{number}", episode_id="ep-1", seed=None)


def served(request: Request, *, horizon: int = 10) -> Served:
    """An answer that the guard left alone."""
    seed = sum(request.request_id.encode())
    actions = np.random.default_rng(seed).normal(size=(horizon, 7)).astype(np.float32)
    return Served(
        chunk=ActionChunk(actions, NAMES, 0.05),
        raw_actions=actions,
        request_id=request.request_id,
        episode_id=request.episode_id,
        seed=7,
        slot="prod",
        model_version="pi0@0123456789abcdef",
        latency_ms=12.3456,
        inference=Inference(
            "onnx_cpu",
            10,
            8,
            stages_ms={"preprocess_ms": 0.5, "vlm_prefix_ms": 4.0, "expert_denoise_ms": 7.75},
        ),
    )


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The records of a plain file that are whole JSON."""
    found = []
    for line in path.read_bytes().split(b"\n"):
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


@dataclass(frozen=True)
class Disk:
    """A place that can be made full: a small file system of its own, or this process's limit of file sizes."""

    path: Path
    mounted: bool

    def files(self, pattern: str) -> list[Path]:
        return sorted(self.path.rglob(pattern))

    def fill(self) -> None:
        if not self.mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
            return
        with (self.path / "ballast").open("wb", buffering=0) as stream:
            for size in (1 << 16, 1 << 12):
                try:
                    while stream.write(b"x" * size):
                        pass
                except OSError:
                    continue

    def free(self) -> None:
        if self.mounted:
            (self.path / "ballast").unlink(missing_ok=True)
            return
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@contextmanager
def tiny_disk(path: Path, size_bytes: int) -> Iterator[Disk]:
    """A tmpfs of that size where this user may mount one; else every write can be made to fail."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(path)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    disk = Disk(path, mounted)
    try:
        yield disk
    finally:
        disk.free()
        if mounted:
            subprocess.run(["umount", "-l", str(path)], check=True)
