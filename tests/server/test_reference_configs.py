"""The files in `configs/`: `serve` can read them, and their pairs work together, tested with small stand-in tokenizers.

The stand-ins have few ordinary tokens. Their added tokens have the real names and, as in the real tokenizers, different
ids for the same role.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from semanticspec import DecodingConfig, RuleConfig, generate
from semanticspec.decoding.pair import Model, Pair
from semanticspec.engines.registry import EngineChoice
from semanticspec.engines.scripted import ScriptedEngine
from semanticspec.records import GREEDY
from semanticspec.server.settings import read_settings
from semanticspec.text.segments import Segmenter
from semanticspec.text.translation import Translation
from semanticspec.text.vocabulary import Vocabulary

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
MERGES = [("Ċ", "Ċ"), (".", "ĊĊ")]
R1_ADDED = (
    "<｜end▁of▁sentence｜>",
    "<｜User｜>",
    "<｜Assistant｜>",
    "<｜begin▁of▁sentence｜>",
    "<|EOT|>",
    "<think>",
    "</think>",
)
QWQ_ADDED = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<tool_call>",
    "</tool_call>",
    "<think>",
    "</think>",
)
R1_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'user' %}<｜User｜>{{ m.content }}{% else %}{{ m.content }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}"
)
QWQ_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)


def stand_in(added: tuple[str, ...], template: str, **special: str) -> Vocabulary:
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet()) + ["".join(pair) for pair in MERGES]
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, MERGES))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens([AddedToken(text, normalized=False, special="think" not in text) for text in added])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    tokenizer.chat_template = template
    return Vocabulary(tokenizer)


@pytest.fixture(scope="module")
def r1() -> Vocabulary:
    names = {"eos_token": "<｜end▁of▁sentence｜>", "bos_token": "<｜begin▁of▁sentence｜>"}
    return stand_in(R1_ADDED, R1_TEMPLATE, **names)


@pytest.fixture(scope="module")
def qwq() -> Vocabulary:
    return stand_in(QWQ_ADDED, QWQ_TEMPLATE, eos_token="<|im_end|>")


def token(vocabulary: Vocabulary, text: str) -> int:
    found: int = vocabulary.tokenizer.convert_tokens_to_ids(text)
    return found


def test_each_models_chat_template_opens_the_thinking(r1: Vocabulary, qwq: Vocabulary) -> None:
    for vocabulary, begin in ((r1, "<｜begin▁of▁sentence｜><｜User｜>"), (qwq, "<|im_start|>user\n")):
        ids = vocabulary.render_prompt("What is 2 + 2?")
        text = vocabulary.tokenizer.decode(ids)
        assert text.startswith(f"{begin}What is 2 + 2?")
        assert text.endswith("<think>\n")
        assert ids.count(token(vocabulary, "<think>")) == 1
        assert vocabulary.opens_thinking(ids)


def test_blank_lines_are_single_tokens(r1: Vocabulary, qwq: Vocabulary) -> None:
    for vocabulary in (r1, qwq):
        segmenter = Segmenter.of(vocabulary)
        assert not segmenter.needs_pair_stops  # vLLM stops at single tokens only
        assert {token(vocabulary, "ĊĊ"), token(vocabulary, ".ĊĊ")} <= segmenter.stop.ids
        assert token(vocabulary, "Ċ") not in segmenter.stop.ids
        ids = [*vocabulary.encode("So."), token(vocabulary, "</think>"), *vocabulary.encode("\n\n4")]
        assert segmenter.think_end(ids) == 4


def test_models_of_one_family_exchange_ids_unchanged(r1: Vocabulary) -> None:
    other = stand_in(
        R1_ADDED, R1_TEMPLATE, eos_token="<｜end▁of▁sentence｜>", bos_token="<｜begin▁of▁sentence｜>"
    )
    translation = Translation(other, r1)
    assert translation.by_ids
    all_ids = list(range(len(r1.tokenizer)))
    assert translation.ids(all_ids) == all_ids


def test_ids_are_translated_between_r1_and_qwq(r1: Vocabulary, qwq: Vocabulary) -> None:
    to_qwq, to_r1 = Translation(r1, qwq), Translation(qwq, r1)
    assert to_qwq.by_ids
    assert to_r1.by_ids
    step = r1.encode("2 + 2 is 4.\n\n")
    end, eos = token(r1, "</think>"), token(r1, "<｜end▁of▁sentence｜>")
    assert to_qwq.ids([*step, end, eos]) == [*step, token(qwq, "</think>"), token(qwq, "<|im_end|>")]
    assert to_qwq.ids([*step, token(r1, "<｜User｜>"), *step]) == step  # the target has no such token
    assert to_r1.ids([token(qwq, "<think>"), *step, token(qwq, "<|im_end|>")]) == [
        token(r1, "<think>"),
        *step,
        eos,
    ]
    context = to_r1.context_ids([*step, token(qwq, "<tool_call>")])
    assert r1.decode(context) == "2 + 2 is 4.\n\n<tool_call>"


def test_a_pair_of_both_families_generates(r1: Vocabulary, qwq: Vocabulary) -> None:
    """The draft writes two steps and ends the thinking, then the target writes the answer."""

    def says(vocabulary: Vocabulary, after: str, end: str) -> ScriptedEngine:
        thinking = [*vocabulary.encode("2 and 2.\n\nThat is 4.\n\n"), token(vocabulary, "</think>")]
        script = [*thinking, *vocabulary.encode(f"\n\n{after}"), token(vocabulary, end)]
        start = len(vocabulary.render_prompt("What is 2 + 2?"))
        size = len(vocabulary.tokenizer)

        def probabilities(ids: tuple[int, ...]) -> list[float]:
            place = min(len(ids) - start, len(script) - 1)
            return [float(i == script[place]) for i in range(size)]

        return ScriptedEngine(probabilities, size)

    target = Model(says(qwq, "\\boxed{4}", "<|im_end|>"), qwq)
    draft = Model(says(r1, "\\boxed{5}", "<｜end▁of▁sentence｜>"), r1)
    for rule in ("top-k", "always"):
        result = generate(
            Pair(target, draft), "What is 2 + 2?", DecodingConfig(rule=RuleConfig(rule), sampling=GREEDY)
        )  # type: ignore[arg-type]
        assert result.reasoning.strip() == "2 and 2.\n\nThat is 4."
        assert result.answer.strip() == "\\boxed{4}"
        assert result.finish_reason == "stop"
        assert {segment.author for segment in result.segments[:-1]} == {"draft"}
        assert result.segments[-1].author == "target"


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_serve_reads_the_file(file: Path) -> None:
    settings = read_settings(file, {})
    assert (settings.temperature, settings.top_p) == (0.6, 0.95)
    engines = [EngineChoice.parse(engine) for engine in settings.engines]
    assert [engine.name for engine in engines] == ["vllm", "vllm"]
    max_model_len = min(engine.options["max_model_len"] for engine in engines)
    assert settings.max_new_tokens is not None
    assert settings.max_new_tokens < max_model_len
    assert settings.draft_device == f"cuda:{engines[0].options['tensor_parallel_size']}"


def test_all_files_are_found() -> None:
    assert [file.stem for file in CONFIGS] == ["qwq-32b", "r1-distill-qwen-32b"]
