# SPDX-License-Identifier: Apache-2.0
"""A schedule of diffusion as a table of numbers, measured on the scheduler itself: no formula here can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from reflex_core.errors import ExportError

COLUMNS = (
    "time", "x0_from_x", "x0_from_network", "next_from_x0", "next_from_x", "next_from_network", "next_from_noise",
)  # fmt: skip
_WITHIN, _BEYOND = 1e-6, 2.0  # times the clip: where x0 is not clipped, and where it is
_AGREEMENT = 1e-9  # relative: both are computed in float64
_NOTHING = 1e-12  # what is left of zero by the rounding of float64
_TRIALS = 8

Step = Callable[[float, float], tuple[float, float]]  # (x, network's answer) -> (x0, next x without noise)


@dataclass(frozen=True, slots=True)
class Rule:
    """One step: x0 = clip(x0_x * x + x0_net * net), and x becomes x_x0 * x0 + x_x * x + x_net * net + x_noise * z."""

    x0_x: float
    x0_net: float
    x_x0: float
    x_x: float
    x_net: float
    x_noise: float

    def next(self, x: float, net: float, clip: float) -> float:
        """Return the next x without its noise."""
        x0 = min(max(self.x0_x * x + self.x0_net * net, -clip), clip)
        return self.x_x0 * x0 + self.x_x * x + self.x_net * net


def sampler(scheduler: Any, steps: int) -> dict[str, Any]:
    """Return `sampler` of reflex_config.json: a row per step of a scheduler of diffusers (DDPM, or DDIM with eta 0).

    Raises ExportError for a scheduler whose steps are not of the form of `Rule`.
    """
    config = scheduler.config
    # clipping shows what each number belongs to, and changes none of them
    clipping = type(scheduler).from_config(config, clip_sample=True)
    clipping.set_timesteps(steps)
    times = [int(time) for time in clipping.timesteps]
    rules = [_rule(clipping, time, float(config.clip_sample_range)) for time in times]
    return {
        "columns": list(COLUMNS),
        "rows": [[time, *astuple(rule)] for time, rule in zip(times, rules, strict=True)],
        "clip": float(config.clip_sample_range) if config.clip_sample else None,
    }


def _rule(scheduler: Any, time: int, clip: float) -> Rule:
    step, noise = _step(scheduler, time)
    small = _WITHIN * clip
    x0_x, x0_net = step(small, 0.0)[0] / small, step(0.0, small)[0] / small
    # from a point where x0 is clipped, in directions in which it stays so
    x, net = (_BEYOND * clip / x0_x, 0.0) if x0_x else (0.0, _BEYOND * clip / x0_net)
    further_x, further_net = abs(x or clip), abs(net or clip)
    further_x, further_net = np.copysign(further_x, x0_x), np.copysign(further_net, x0_net)
    there = step(x, net)[1]
    x_x = (step(x + further_x, net)[1] - there) / further_x
    x_net = (step(x, net + further_net)[1] - there) / further_net
    x_x0 = (there - x_x * x - x_net * net) / clip
    measured = map(float, (x0_x, x0_net, x_x0, x_x, x_net, noise))
    rule = Rule(*(number if abs(number) > _NOTHING else 0.0 for number in measured))
    _check(rule, step, clip, f"{type(scheduler).__name__} at time {time}")
    return rule


def _step(scheduler: Any, time: int) -> tuple[Step, float]:
    """Return the step of one number in float64 without its noise, and what the noise is multiplied with."""
    import torch
    from diffusers.utils.torch_utils import randn_tensor

    def run(x: float, net: float) -> Any:
        given, answered = (torch.tensor([[number]], dtype=torch.float64) for number in (x, net))
        return scheduler.step(answered, time, given, generator=torch.Generator().manual_seed(0))

    drawn = randn_tensor((1, 1), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = float(run(0.0, 0.0).prev_sample) / float(drawn)

    def step(x: float, net: float) -> tuple[float, float]:
        made = run(x, net)
        return float(made.pred_original_sample), float(made.prev_sample) - noise * float(drawn)

    return step, noise


def _check(rule: Rule, step: Step, clip: float, where: str) -> None:
    """Raise ExportError unless the rule makes what the scheduler makes, clipped and not."""
    random = np.random.Generator(np.random.Philox(0))
    for x, net in random.normal(0, clip, (_TRIALS, 2)).tolist():
        ours, theirs = rule.next(x, net, clip), step(x, net)[1]
        if abs(ours - theirs) > _AGREEMENT * max(1.0, abs(theirs), abs(rule.x_x0 * clip)):
            raise ExportError(
                f"{where} makes {theirs:.9g} of x {x:.3g} and the network's {net:.3g}, and the table {ours:.9g}: its steps are not"
                " sums of x, x0, the network's answer and noise, so that this schedule cannot be served",
                "not-exportable",
            )
