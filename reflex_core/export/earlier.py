# SPDX-License-Identifier: Apache-2.0
"""What the first version made of an export where this one does something else: the reasons why its actions differ.

It read the same reflex_config.json, but filled in other defaults and of LeRobot's processors took the tensors alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from reflex_core.export.contract import Contract
from reflex_core.export.export import Export
from reflex_core.export.families import family_of
from reflex_core.export.layout_defaults import EXPERT_STACK, layout_of
from reflex_core.export.prompt import CLEAN, Prompt
from reflex_core.images.resize import AREA, LETTERBOX
from reflex_core.normalization.affine import MEAN_STD

# template, and whether the instruction was cleaned
_PROMPTS: Mapping[str, tuple[str, bool]] = {
    "smolvla": ("{instruction}\n", False),
    "pi0": ("{instruction}\n", True),
    "pi05": ("Task: {instruction};\nAction: ", True),
}
# what cleaning leaves alone, and what it changes
_PLAIN, _ODD = ("INSTRUCTION", "STATE"), " pick_up\nthe cube "


def changes(export: Export, contract: Contract) -> tuple[str, ...]:
    """Return one phrase for everything that is done to inputs or actions of this export and was not before."""
    found = (_pictures, _prompt, _flow, _statistics, _relative)
    return tuple(phrase for each in found for phrase in each(export, contract))


def _pictures(export: Export, contract: Contract) -> Iterator[str]:
    written = export.config.get("images")
    entries = {
        entry.get("input"): entry.get("resize", LETTERBOX)
        for entry in (written if isinstance(written, list) else [])
        if isinstance(entry, Mapping)
    }
    seen = set[str]()
    for slot in contract.images:
        before, now = (entries.get(slot.input, LETTERBOX), AREA), (slot.resize, slot.filter)
        if before != now:
            seen.add(
                f"pictures of another size are resized by {' and '.join(now)} instead of {' and '.join(before)}"
            )
    yield from sorted(seen)


def _prompt(export: Export, contract: Contract) -> Iterator[str]:
    slot = contract.language
    if slot is None:
        return
    template, clean = "{instruction}", False
    if layout_of(export.path, export.config) != EXPERT_STACK:
        template, clean = _PROMPTS.get(family_of(export.config), (template, clean))
    own = export.config.get("language")
    block: Mapping[str, Any] = own if isinstance(own, Mapping) else {}
    clean = bool(block.get("clean", clean))
    before = Prompt(str(block.get("template", template)), clean, tuple(CLEAN.items()) if clean else ())
    if before.text(*_PLAIN) != slot.prompt.text(*_PLAIN):
        yield f"the prompt is {slot.prompt.text(*_PLAIN)!r:.120} instead of {before.text(*_PLAIN)!r:.120}"
    elif before.text(_ODD) != slot.prompt.text(_ODD):
        yield "underscores, line breaks and surrounding blanks of an instruction are handled differently"
    if slot.padding_side != "right":
        yield f"tokens are padded at the {slot.padding_side} instead of the right"


def _flow(export: Export, contract: Contract) -> Iterator[str]:
    own = export.config.get("flow")
    block: Mapping[str, Any] = own if isinstance(own, Mapping) else {}
    flow, before = contract.flow, (block.get("start", 1.0), block.get("end", 0.0), 1.0)
    if not contract.fused and (flow.start, flow.end, flow.time_scale) != before:
        scaled = f", times {flow.time_scale:g}" if flow.time_scale != 1.0 else ""
        yield f"time runs from {flow.start:g} to {flow.end:g}{scaled} instead of from {before[0]:g} to {before[1]:g}"


def _statistics(export: Export, _: Contract) -> Iterator[str]:
    """Yield where the first version took other statistics: mean and std, or the configuration's mode, not the processors'."""
    own = export.config.get("normalization")
    block: Mapping[str, Any] = own if isinstance(own, Mapping) else {}
    modes = {"state": export.normalization.state_mode, "action": export.normalization.action_mode}
    if export.processors is not None and not {"state", "action"} & set(block):
        before = str(block.get("mode", MEAN_STD))
        for name in (name for name, mode in modes.items() if mode not in ("", before)):
            yield f"the {name} is normalised by {modes[name]} instead of {before}, as LeRobot's processors say"
    if modes["state"] == MEAN_STD:
        yield "the state is divided by std + eps instead of std (affects the last digits)"


def _relative(_: Export, contract: Contract) -> Iterator[str]:
    if contract.relative:
        yield "relative actions are converted to positions instead of being served as offsets"
