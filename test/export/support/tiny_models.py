# SPDX-License-Identifier: Apache-2.0
"""What makes LeRobot's own classes small: the parts that no checkpoint holds, and the sizes that no configuration names.

No class is changed. SmolVLA and X-VLA are small by configuration; of pi0 and pi0.5 the sizes stand in LeRobot's code, so that
`shrink_pi` has to run in every process that makes or loads a small one.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

SENTENCES = (
    "pick up the red block and place it in the bin",
    "Task: reach the blue cube, State: 1 2 3 4 255;\nAction: ",
    "fold_the_towel\n",
)
TOKENS, VOCABULARY = 480, 512
SMOLVLM, PALIGEMMA, BART = (
    "HuggingFaceTB/SmolVLM2-500M-Video-Instruct",
    "google/paligemma-3b-pt-224",
    "facebook/bart-large",
)
SMOLVLM_SIDE = 128

FLORENCE: dict[str, Any] = {
    "vision_config": {
        "model_type": "davit", "depths": [1, 1, 1, 1], "embed_dim": [32, 64, 96, 128], "num_heads": [2, 4, 6, 8],
        "num_groups": [2, 4, 6, 8], "window_size": 4, "projection_dim": 128, "max_position_embeddings": 20,
        "max_temporal_embeddings": 10,
    },
    "text_config": {
        "model_type": "bart", "d_model": 128, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 256, "decoder_ffn_dim": 256, "vocab_size": VOCABULARY,
        "max_position_embeddings": 600, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
    },
}  # fmt: skip


@dataclass(frozen=True)
class TokenizerKind:
    """What a tokenizer of the hub puts around a text, and its special tokens: numbered from 0 in this order."""

    special: tuple[str, ...]
    around: str
    names: dict[str, Any]


TOKENIZERS = {
    SMOLVLM: TokenizerKind(
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<fake_token_around_image>", "<image>", "<global-img>"),
        "$A",
        {
            "pad_token": "<|im_end|>", "eos_token": "<|im_end|>",
            "extra_special_tokens": {
                "fake_image_token": "<fake_token_around_image>", "image_token": "<image>",
                "global_image_token": "<global-img>", "end_of_utterance_token": "<|im_end|>",
            },
        },
    ),
    PALIGEMMA: TokenizerKind(
        ("<pad>", "<eos>", "<bos>"), "<bos> $A", {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}
    ),
    BART: TokenizerKind(
        ("<s>", "<pad>", "</s>"), "<s> $A </s>", {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    ),
}  # fmt: skip


def tokenizer_of(name: str) -> PreTrainedTokenizerFast:
    """Make a byte-level tokenizer, trained on three sentences, that stands for one of the hub."""
    kind = TOKENIZERS[name]
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = list(kind.special)
    trainer = trainers.BpeTrainer(vocab_size=TOKENS, special_tokens=special, initial_alphabet=alphabet)
    made.train_from_iterator(SENTENCES * 50, trainer)
    made.post_processor = processors.TemplateProcessing(
        single=kind.around, special_tokens=[(token, number) for number, token in enumerate(special)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, **kind.names)


def save_tokenizer(name: str, folder: Path) -> None:
    """Write the files of `tokenizer_of`."""
    tokenizer_of(name).save_pretrained(folder)


def save_smolvlm(folder: Path) -> None:
    """Write what LeRobot reads of the hub's SmolVLM when a policy's own weights are to be loaded: configuration and processor."""
    hidden = 192
    SmolVLMConfig(
        text_config={
            "model_type": "llama", "hidden_size": hidden, "intermediate_size": hidden * 3, "num_hidden_layers": 4,
            "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 64, "vocab_size": VOCABULARY, "pad_token_id": 2,
        },
        vision_config={
            "hidden_size": hidden, "intermediate_size": hidden * 3, "num_hidden_layers": 4, "num_attention_heads": 4,
            "image_size": SMOLVLM_SIDE, "patch_size": 16,
        },
        scale_factor=2, image_token_id=VOCABULARY - 1, pad_token_id=2,
    ).save_pretrained(folder)  # fmt: skip
    SmolVLMProcessor(
        SmolVLMImageProcessor(),
        tokenizer_of(SMOLVLM),
        SmolVLMVideoProcessor(),
        chat_template="{{ messages }}",
    ).save_pretrained(folder)


def shrink_pi() -> None:
    """Let this process build and load pi0 and pi0.5 of a million parameters instead of three thousand; a second call changes nothing."""
    for family in ("pi0", "pi05"):
        module = importlib.import_module(f"lerobot.policies.{family}.modeling_{family}")
        if hasattr(module, "_small"):
            continue
        module._small = True
        width = module.GemmaConfig(width=128, depth=4, mlp_dim=256, num_heads=4, num_kv_heads=1, head_dim=32)
        module.get_gemma_config = lambda _variant, width=width: width
        name = "PaliGemmaForConditionalGenerationWithPiGemma"
        setattr(module, name, _small_paligemma(getattr(module, name)))


def _small_paligemma(real: Any) -> Any:
    def build(config: Any) -> Any:
        vision = {
            "hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 256,
            "projection_dim": 128,
        }  # fmt: skip
        for key, value in vision.items():
            setattr(config.vision_config, key, value)
        config.text_config.vocab_size = config._vocab_size = VOCABULARY
        config.image_token_index = VOCABULARY - 1
        config.projection_dim = 128
        return real(config=config)

    return build
