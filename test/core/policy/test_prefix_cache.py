# SPDX-License-Identifier: Apache-2.0
"""The episode cache: what is a hit and what is not, whose prefix is whose, what is refused, what a real robot gets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import ExportDir

from benchmarks import prefix_reuse
from reflex_core.errors import ConfigurationError, ExportError
from reflex_core.export.binding import bind
from reflex_core.export.config_schema import CacheRule
from reflex_core.export.export import open_export
from reflex_core.export.image_slots import ImageSlot
from reflex_core.files.share import embedded_policy
from reflex_core.policy import flow_matching
from reflex_core.policy.base import Policy, Prediction
from reflex_core.policy.cuda_graph import StaticSession
from reflex_core.policy.layouts import load_placed
from reflex_core.policy.load import load_policy
from reflex_core.policy.onnx_policy import OnnxPolicy
from reflex_core.policy.prefix_cache import HIT, MISS, NOT_CACHED, PrefixCache, image_change, thumbnail
from reflex_core.policy.providers import Placement
from reflex_core.policy.sampler import PLAIN
from reflex_core.robot.presets import load_embodiment
from reflex_core.values import Frame, Observation, Request
from reflex_core.wedges.predict import Predict

RULE = CacheRule(0.05, 1000.0)
START_NS = 1_700_000_000_000_000_000


def policy_of(path: Path) -> Policy:
    return load_policy(open_export(path), None, "cpu", 1)


@pytest.fixture(scope="module")
def reach() -> Policy:
    path = embedded_policy()
    return load_policy(open_export(path), load_embodiment(path / "embodiment.json"), "cpu", 1)


def observation(
    policy: Policy,
    instruction: str = "reach the red cube",
    *,
    level: int = 100,
    spot: int | None = None,
    shift: float = 0.0,
    at_ms: float = 0.0,
) -> Observation:
    """A grey picture; `spot` paints an eighth of its width and height in another green."""
    plain = policy.canary()
    frames = {}
    for name, one in plain.frames.items():
        pixels = np.full_like(one.data, level)
        if spot is not None:
            pixels[: one.height // 8, : one.width // 8, 1] = spot
        frames[name] = Frame(pixels, "rgb8", one.height, one.width)
    state = None if plain.state is None else (plain.state + np.float32(shift)).astype(np.float32)
    return Observation(frames, state, instruction, START_NS + round(at_ms * 1e6))


class Robot:
    """A policy with a cache, asked by episode."""

    def __init__(self, policy: Policy, cache: PrefixCache | None = None) -> None:
        self.policy = policy
        self.cache = policy.prefix_cache() if cache is None else cache

    def ask(self, episode: str | None = "pick", seed: int = 1, **seen: Any) -> Prediction:
        return self.policy.predict(observation(self.policy, **seen), seed, PLAIN, None, episode, self.cache)


def test_an_unchanged_observation_is_a_hit_and_gives_the_same_bytes(reach: Policy) -> None:
    robot = Robot(reach)
    first, second = robot.ask(), robot.ask(at_ms=400.0)
    assert (first.cache.status, second.cache.status) == (MISS, HIT)
    assert (first.cache.age_ms, second.cache.age_ms) == (0.0, pytest.approx(400.0))
    assert second.actions.tobytes() == first.actions.tobytes()
    assert robot.cache.counts == {"first": 1, HIT: 1}


def test_a_hit_does_not_run_the_prefix_but_takes_noise_and_state_anew(
    reach: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    robot = Robot(reach)
    robot.ask()
    expected = reach.predict(observation(reach, shift=0.1), 5).actions
    prefix = next(one for one in reach._layout.sessions if one.path.name == "vlm_prefix.onnx")
    monkeypatch.setattr(prefix, "run", lambda *_: pytest.fail("the prefix ran"))
    found = robot.ask(seed=5, shift=0.1)
    assert found.cache.status == HIT
    np.testing.assert_array_equal(found.actions, expected)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"instruction": "reach the green cube"}, "input"),
        ({"at_ms": 1000.5}, "age"),
        ({"at_ms": -1.0}, "age"),  # the robot's clock went back
        ({"spot": 200}, "image"),
        ({"level": 160}, "image"),
    ],
)
def test_what_has_changed_is_a_miss_and_answered_as_without_a_cache(
    reach: Policy, changed: dict[str, Any], why: str
) -> None:
    robot = Robot(reach)
    robot.ask()
    found = robot.ask(seed=2, **changed)
    assert (found.cache.status, found.cache.why) == (MISS, why)
    assert found.actions.tobytes() == reach.predict(observation(reach, **changed), 2).actions.tobytes()


def test_what_changes_little_is_a_hit_but_little_by_little_it_adds_up(reach: Policy) -> None:
    robot = Robot(reach, PrefixCache(RULE, reach.contract.images, reach._layout.prefix_inputs))
    levels = (100, 104, 108, 112, 116, 120)  # the threshold is 12.75
    statuses = [robot.ask(level=level).cache.status for level in levels]
    assert statuses == [MISS, HIT, HIT, HIT, MISS, HIT]


def test_a_hit_does_not_make_it_younger(reach: Policy) -> None:
    robot = Robot(reach)
    statuses = [robot.ask(at_ms=at_ms).cache.status for at_ms in (0, 600, 1200, 1800)]
    assert statuses == [MISS, HIT, MISS, HIT]


def test_without_stamps_age_is_counted_on_this_machine_s_clock(reach: Policy) -> None:
    now = [0]
    cache = PrefixCache(RULE, reach.contract.images, reach._layout.prefix_inputs, clock_ns=lambda: now[0])
    seen = replace(observation(reach), stamp_ns=0)
    found = []
    for at_ms in (0, 900, 1100):
        now[0] = round(at_ms * 1e6)
        found.append(reach.predict(seen, 1, PLAIN, None, "pick", cache).cache)
    assert [one.status for one in found] == [MISS, HIT, MISS]
    assert found[1].age_ms == pytest.approx(900.0)


def test_interleaved_episodes_never_see_each_other_s_prefix(reach: Policy) -> None:
    robot = Robot(reach)
    words = {"one": "reach the red cube", "two": "reach the green cube", "three": "reach the blue cube"}
    for _ in range(3):
        for seed, (episode, instruction) in enumerate(words.items()):
            found = robot.ask(episode, seed, instruction=instruction)
            fresh = reach.predict(observation(reach, instruction), seed)
            assert found.actions.tobytes() == fresh.actions.tobytes()
    assert robot.cache.counts == {"first": 3, HIT: 6}


def test_requests_without_an_episode_are_never_cached(reach: Policy) -> None:
    robot = Robot(reach)
    assert [robot.ask(None).cache.status for _ in range(2)] == [NOT_CACHED] * 2
    assert robot.cache.size_bytes == 0


def test_the_oldest_episode_goes_first(reach: Policy) -> None:
    cache = PrefixCache(RULE, reach.contract.images, reach._layout.prefix_inputs, episodes=2)
    robot = Robot(reach, cache)
    statuses = [robot.ask(name).cache.status for name in ("a", "b", "a", "c", "a", "b")]
    assert statuses == [MISS, MISS, HIT, MISS, HIT, MISS]


def test_bytes_are_bounded_and_counted_once_per_episode(reach: Policy) -> None:
    robot = Robot(reach)
    robot.ask("a")
    one = robot.cache.size_bytes
    robot.ask("a", level=200)
    assert robot.cache.size_bytes == one > 0
    inputs = reach._layout.prefix_inputs
    for room, episodes in ((2 * one, ["b", "c"]), (one - 1, [])):
        small = Robot(reach, PrefixCache(RULE, reach.contract.images, inputs, most_bytes=room))
        for name in "abc":
            small.ask(name)
        assert small.cache.size_bytes == len(episodes) * one
        assert [small.ask(name).cache.status for name in episodes] == [HIT] * len(episodes)


def test_a_forgotten_episode_begins_anew(reach: Policy) -> None:
    robot = Robot(reach)
    robot.ask()
    robot.cache.forget("pick")
    robot.cache.forget(None)
    assert robot.ask().cache.why == "first"


def test_a_prefix_that_led_to_nan_is_not_kept(reach: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    robot = Robot(reach)
    broken = replace(reach._layout.network, sample=lambda *_: (np.full((1, 50, 7), np.nan, np.float32), 10))
    with monkeypatch.context() as patched:
        patched.setattr(reach, "_layout", replace(reach._layout, network=broken))
        robot.ask()
    assert robot.ask().cache.why == "first"


@pytest.mark.parametrize("name", ["decomposed", "decomposed_per_step"])
def test_tensors_that_the_next_run_overwrites_are_copied(export_copy: ExportDir, name: str) -> None:
    export = open_export(with_block(export_copy(name)))
    layout = load_placed(flow_matching.network, export, Placement(("CPUExecutionProvider",), 1, static=True))
    policy = OnnxPolicy(export, layout, bind(export, layout.contract, None))
    assert layout.overwritten
    policy.capture_graphs()
    assert any(isinstance(session, StaticSession) for session in layout.sessions)
    robot = Robot(policy, PrefixCache(RULE, policy.contract.images, layout.prefix_inputs, overwritten=True))
    first = robot.ask("a")
    other = robot.ask("b", level=220)
    again = robot.ask("a")
    assert again.cache.status == HIT
    assert again.actions.tobytes() == first.actions.tobytes() != other.actions.tobytes()
    assert robot.ask("b", level=220).actions.tobytes() == other.actions.tobytes()


def with_block(path: Path, **changes: object) -> Path:
    file = path / "reflex_config.json"
    block = {"image_threshold": 0.05, "max_age_ms": 1000}
    file.write_text(json.dumps({**json.loads(file.read_text()), "prefix_cache": block, **changes}))
    return path


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mono_pi0_7", "the whole network is one graph"),
        ("gr00t", "the whole network is one graph"),
        ("vlm_stack", "the state enters its prefix"),
    ],
)
def test_a_layout_whose_prefix_cannot_be_kept_is_refused(
    export_copy: ExportDir, name: str, says: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"--prefix-cache: .*{says}") as refused:
        policy_of(with_block(export_copy(name))).prefix_cache()
    assert refused.value.slug == "prefix-cache-layout"


def test_a_state_in_the_prompt_is_refused(export_copy: ExportDir) -> None:
    language = {"template": "Task: {instruction}, State: {state}"}
    path = with_block(export_copy("decomposed_per_step"), language=language, state={"enters": "prompt"})
    with pytest.raises(ConfigurationError, match="the state is part of the prompt"):
        policy_of(path).prefix_cache()


def test_an_export_that_says_nothing_or_was_measured_on_other_weights_is_refused(
    export_copy: ExportDir,
) -> None:
    path = export_copy("decomposed_state_per_step")
    with pytest.raises(ConfigurationError, match="does not say how much a picture may change") as refused:
        policy_of(path).prefix_cache()
    assert refused.value.slug == "prefix-cache-unmeasured"
    block = {"image_threshold": 0.1, "max_age_ms": 500, "measured": {"model_hash": "0123456789abcdef"}}
    with pytest.raises(ConfigurationError, match="measured on weights '0123456789abcdef'") as stale:
        policy_of(with_block(path, prefix_cache=block)).prefix_cache()
    assert stale.value.slug == "prefix-cache-stale"


def test_the_user_s_own_age_wins(reach: Policy) -> None:
    own = reach.prefix_cache().rule
    assert reach.prefix_cache(250.0).rule == replace(own, max_age_ms=250.0)


@pytest.mark.parametrize(
    ("block", "key"),
    [
        ({"max_age_ms": 100}, "prefix_cache.image_threshold"),
        ({"image_threshold": 2, "max_age_ms": 100}, "prefix_cache.image_threshold"),
        ({"image_threshold": True, "max_age_ms": 100}, "prefix_cache.image_threshold"),
        ({"image_threshold": 0.1, "max_age_ms": 0}, "prefix_cache.max_age_ms"),
        ({"image_threshold": 0.1, "max_age_ms": float("inf")}, "prefix_cache.max_age_ms"),
        ({"image_threshold": 0.1, "max_age_ms": 100, "measured": 3}, "prefix_cache.measured"),
    ],
)
def test_a_block_that_says_nonsense_is_refused_by_key(
    export_copy: ExportDir, block: dict[str, Any], key: str
) -> None:
    with pytest.raises(ExportError, match=key):
        policy_of(with_block(export_copy("decomposed_per_step"), prefix_cache=block))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("size", [32, 96, 224, 448])
def test_a_change_is_a_share_of_the_pixels_range_whatever_the_network_makes_of_them(
    last: bool, size: int
) -> None:
    scale = np.array([2 / 255, 1 / 255, 0.5 / 255], np.float32)
    black = np.zeros(3, np.float32)
    slot = ImageSlot(
        "camera", "image", None, size, size, last, "stretch", "area", scale, black, black, 0.0, True
    )
    pixels = np.full((size, size, 3), 51.0, np.float32)
    brighter = pixels.copy()
    brighter[-size // 16 :, -size // 16 :, 2] = 204.0  # one cell of one colour
    before, after = (
        thumbnail((one * scale)[None] if last else (one * scale).transpose(2, 0, 1)[None], slot)
        for one in (pixels, brighter)
    )
    assert before.shape == (16, 16, 3)
    assert image_change(before, after) == pytest.approx(153 / 255, abs=0.1)  # rows are skipped
    assert image_change(before, before) == 0


def test_nan_in_a_picture_is_a_change(reach: Policy) -> None:
    cache = reach.prefix_cache()
    seen = observation(reach)
    arrays = reach.arrays(seen)[0]
    before = cache.seen(seen, arrays)
    cache.keep("pick", before, {})
    arrays["image"] = np.full_like(arrays["image"], np.nan)
    assert cache.find("pick", cache.seen(seen, arrays)).why == "image"


@pytest.mark.parametrize("last", [False, True])
def test_a_change_of_an_earlier_picture_or_of_a_stacked_camera_is_a_change(last: bool) -> None:
    scale, black = np.full(3, 1 / 255, np.float32), np.zeros(3, np.float32)
    plain = ImageSlot("one", "eye", None, 32, 32, last, "stretch", "area", scale, black, black, 0.0, True)
    slots = [replace(plain, steps=2, stack=place, stacked=2) for place in (0, 1)]
    arrays = {"eye": np.zeros((1, 2, 2, *((32, 32, 3) if last else (3, 32, 32))), np.float32)}
    seen = Observation({}, None, "")
    cache = PrefixCache(CacheRule(0.1, 1000.0), slots, ["eye"])
    before = cache.seen(seen, arrays)
    assert [picture.shape for picture in before.thumbnails] == [(16, 16, 3)] * 4
    cache.keep("pick", before, {})
    assert cache.find("pick", cache.seen(seen, arrays)).status == HIT
    for step, camera in ((0, 0), (0, 1), (1, 0), (1, 1)):
        moved = {"eye": arrays["eye"].copy()}
        moved["eye"][0, step, camera] = 1.0
        assert cache.find("pick", cache.seen(seen, moved)).why == "image"


def test_the_answer_says_what_the_cache_did(reach: Policy) -> None:
    predict = Predict(reach, "prod", lambda: 0, lambda _: PLAIN, reach.prefix_cache())
    requests = [
        Request(observation(reach, at_ms=at_ms), 1, f"request-{at_ms}", episode, 3)
        for at_ms, episode in ((0, "pick"), (300, "pick"), (300, None))
    ]
    answers = [predict(request, lambda _: pytest.fail("nothing to proceed to")) for request in requests]
    assert [one.cache.status for one in answers] == [MISS, HIT, NOT_CACHED]
    assert [one.cache.age_ms for one in answers] == [0.0, pytest.approx(300.0), 0.0]


def test_the_embedded_policy_reaches_a_block_that_moves_with_the_cache_and_not_with_one_that_is_blind(
    tmp_path: Path,
) -> None:
    output = tmp_path / "reuse.json"
    arguments = ["--episodes", "1", "--moved-episodes", "2", "--output", str(output)]
    assert prefix_reuse.main(arguments) == 0
    rows = {(row["task"], row["prefix"]): row for row in json.loads(output.read_text())["rows"]}
    cached = next(name for _, name in rows if name.startswith("cache"))
    for task in (prefix_reuse.STATIC, prefix_reuse.SMALL, prefix_reuse.FAR):
        assert rows[task, cached]["reached"] == rows[task, prefix_reuse.EVERY]["reached"]
        assert rows[task, cached]["hits"] not in ("0%", "100%")
    assert rows[prefix_reuse.FAR, prefix_reuse.IGNORING]["reached"] == 0
    assert rows[prefix_reuse.STATIC, cached]["network ms"] > 0
