# SPDX-License-Identifier: Apache-2.0
"""Instructions to train the picking policy on, and its vocabulary."""

from __future__ import annotations

import numpy as np

from reflex_ros.demo.pick_scene import PICK_TEMPLATES
from reflex_ros.demo.scene import COLOURS
from training.language import PAD, TOKEN_COUNT, UNKNOWN, UNKNOWN_WORD_SHARE, words_of

TEMPLATE_SHARE, UNKNOWN_SENTENCE_SHARE = 0.4, 0.3
PICK_OPENINGS = (
    "please", "now", "robot", "hey robot", "could you please", "can you", "i want you to", "your task is to", "next",
    "kindly", "ok now",
)  # fmt: skip
PICK_VERBS = (
    "pick up", "grasp", "lift", "pick", "take", "grab", "raise", "lift up", "get", "fetch", "hold up", "go and pick up",
)  # fmt: skip
PICK_ADVERBS = ("slowly", "carefully", "gently", "quickly")
PICK_ADJECTIVES = ("small", "little", "coloured", "bright", "wooden", "plastic")
PICK_NOUNS = ("block", "cube", "box", "one", "object", "target", "brick", "thing")
PICK_CLOSINGS = (
    "on the table", "in front of you", "right now", "with the gripper", "and lift it", "and hold it", "on the left",
    "on the right", "and then stop", "near the other block", "without touching the other cubes",
    "that is lying on the table", "and hold it up until i say so",
)  # fmt: skip


def pick_vocabulary() -> dict[str, int]:
    """Return every word of the phrases with its number; 0 is padding and 1 is any other word."""
    words = {"the", *COLOURS}
    for phrase in (
        *PICK_TEMPLATES, *PICK_OPENINGS, *PICK_VERBS, *PICK_ADVERBS, *PICK_ADJECTIVES, *PICK_NOUNS, *PICK_CLOSINGS
    ):  # fmt: skip
        words.update(words_of(phrase.replace("{colour}", "")))
    return {word: index for index, word in enumerate((PAD, UNKNOWN, *sorted(words)))}


def sample_pick_instruction(colour: str, generator: np.random.Generator) -> str:
    """Return a sentence that names the colour; now and then with words outside the vocabulary."""

    def maybe(phrases: tuple[str, ...], share: float) -> str:
        return str(generator.choice(phrases)) if generator.random() < share else ""

    if generator.random() < TEMPLATE_SHARE:
        sentence = str(generator.choice(PICK_TEMPLATES)).format(colour=colour)
    else:
        parts = (
            maybe(PICK_OPENINGS, 0.5), maybe(PICK_ADVERBS, 0.15), str(generator.choice(PICK_VERBS)), "the",
            maybe(PICK_ADJECTIVES, 0.15), colour, str(generator.choice(PICK_NOUNS)), maybe(PICK_CLOSINGS, 0.5),
        )  # fmt: skip
        sentence = " ".join(part for part in parts if part)
    if generator.random() < UNKNOWN_SENTENCE_SHARE:
        sentence = " ".join(
            UNKNOWN if word != colour and generator.random() < UNKNOWN_WORD_SHARE else word
            for word in sentence.split()
        )
    return " ".join(sentence.split()[:TOKEN_COUNT])
