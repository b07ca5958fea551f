"""Builds the tokenizer both models of the demo share: byte-level BPE, trained on the grammar's own text."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from semanticspec.demo import target_path
from semanticspec.demo.stories import problems
from semanticspec.demo.traces import THINK_END, write_trace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedTokenizerFast

PAD, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
THINK_TAGS = ("<think>", THINK_END)
VOCABULARY_SIZE = 1024
# As Qwen splits text, but every digit stands alone and may carry the space before it.
SPLIT_PATTERN = r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
_NUM_PROBLEMS = 6000


def _corpus() -> Iterator[str]:
    rng = random.Random(0)
    for problem in problems("train", _NUM_PROBLEMS):
        yield problem.text
        for style in ("target", "draft"):
            trace = "".join(piece.text for piece in write_trace(problem, style, rng, slip_share=0.5))
            yield from trace.split(THINK_END)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Trains the tokenizer; deterministic."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[PAD, TURN_START, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in THINK_TAGS])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=PAD,
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def pair_tokenizer() -> PreTrainedTokenizerFast:
    """Returns the bundled pair's tokenizer, so that models trained later fit it; builds it if there is none."""
    from transformers import PreTrainedTokenizerFast

    bundled = target_path()
    if (bundled / "tokenizer.json").exists():
        return PreTrainedTokenizerFast.from_pretrained(bundled, local_files_only=True)
    return build_tokenizer()
