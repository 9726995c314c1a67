# SPDX-License-Identifier: Apache-2.0
"""Instructions to train on, and the tokenizer that is shipped with the export."""

from __future__ import annotations

import re

import numpy as np
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from reflex_ros.demo.scene import COLOURS, INSTRUCTION_TEMPLATES

TOKEN_COUNT = 24
PAD, UNKNOWN = "<pad>", "<unk>"
ANY_BLOCK_SHARE = 0.08
TEMPLATE_SHARE = 0.4
UNKNOWN_WORD_SHARE = 0.1
OPENINGS = (
    "please", "now", "robot", "hey robot", "robot please", "could you please", "can you", "i want you to",
    "i would like you to", "your task is to", "next", "ok now", "kindly",
)  # fmt: skip
VERBS = (
    "reach", "touch", "move to", "go to", "point at", "hover over", "move above", "reach for",
    "move the arm to", "move the arm above", "bring the gripper over to", "move your hand to",
    "move the arm over to", "stop above", "find", "pick", "approach", "reach out to", "go over to", "come to",
)  # fmt: skip
ADVERBS = ("slowly", "carefully", "gently", "quickly", "straight", "directly")
ADJECTIVES = ("small", "little", "coloured", "bright", "wooden", "plastic")
NOUNS = ("block", "cube", "box", "one", "object", "target", "brick", "thing")
CLOSINGS = (
    "on the table", "in front of you", "right now", "with the gripper", "with your hand", "on the left",
    "on the right", "in the middle", "near the other block", "and then stop", "and wait there",
    "as soon as you can", "without touching the other cubes", "that is lying on the table",
    "and stay there until i say so",
)  # fmt: skip
ANY_BLOCK = (
    "reach any block",
    "touch any one of the cubes",
    "go to a block",
    "move to some block",
    "any block will do",
)


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def vocabulary() -> dict[str, int]:
    """Every word of the templates and phrases; 0 is padding and 1 is any other word."""
    phrases = (
        *INSTRUCTION_TEMPLATES,
        *OPENINGS,
        *VERBS,
        *ADVERBS,
        *ADJECTIVES,
        *NOUNS,
        *CLOSINGS,
        *ANY_BLOCK,
    )
    words = set(COLOURS)
    for phrase in phrases:
        words.update(words_of(phrase.replace("{colour}", "")))
    return {word: index for index, word in enumerate((PAD, UNKNOWN, *sorted(words)))}


def build_tokenizer(words: dict[str, int] | None = None) -> Tokenizer:
    """A word-level tokenizer that neither cuts nor pads: the server does, and reports what it cut.

    words: the vocabulary, that of the reaching policy by default.
    """
    tokenizer = Tokenizer(models.WordLevel(words or vocabulary(), unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("[^a-z]+"), "removed")
    tokenizer.add_special_tokens([PAD, UNKNOWN])
    return tokenizer


def composed_instruction(colour: str, generator: np.random.Generator) -> str:
    """A sentence of 3 to TOKEN_COUNT words that names the colour once."""

    def maybe(phrases: tuple[str, ...], share: float) -> str:
        return str(generator.choice(phrases)) if generator.random() < share else ""

    while True:
        parts = (
            maybe(OPENINGS, 0.5), maybe(ADVERBS, 0.15), str(generator.choice(VERBS)), maybe(ADVERBS, 0.1),
            "the", maybe(ADJECTIVES, 0.15), colour, str(generator.choice(NOUNS)), maybe(CLOSINGS, 0.5),
            maybe(CLOSINGS, 0.15),
        )  # fmt: skip
        sentence = " ".join(part for part in parts if part)
        if len(sentence.split()) <= TOKEN_COUNT:
            return sentence


def sample_instruction(colour: str, generator: np.random.Generator) -> str:
    """An instruction that names `colour`; now and then with words replaced by ones outside the vocabulary."""
    if generator.random() < TEMPLATE_SHARE:
        sentence = str(generator.choice(INSTRUCTION_TEMPLATES)).format(colour=colour)
    else:
        sentence = composed_instruction(colour, generator)
    if generator.random() > 0.3:
        return sentence
    words = [
        UNKNOWN if word != colour and generator.random() < UNKNOWN_WORD_SHARE else word
        for word in sentence.split()
    ]
    return " ".join(words)


def encode(tokenizer: Tokenizer, sentences: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns ids int64 [N, TOKEN_COUNT] and mask bool [N, TOKEN_COUNT], True where a word stands."""
    ids = np.zeros((len(sentences), TOKEN_COUNT), dtype=np.int64)
    mask = np.zeros((len(sentences), TOKEN_COUNT), dtype=bool)
    for row, encoding in enumerate(tokenizer.encode_batch(sentences)):
        kept = encoding.ids[:TOKEN_COUNT]
        ids[row, : len(kept)] = kept
        mask[row, : len(kept)] = True
    return ids, mask
