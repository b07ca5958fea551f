"""Foreign methods: transformers' own generation, SpecReason and Speculative Thinking."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from semanticspec import DecodingConfig
from semanticspec.benchmark.baselines.registry import BASELINES
from semanticspec.benchmark.baselines.specreason import INSTRUCTION, ScoringPrompt, SpecReason
from semanticspec.benchmark.baselines.speculative_thinking import SpeculativeThinking, Takeovers, tone
from semanticspec.benchmark.baselines.transformers_generate import HuggingFaceAssisted, HuggingFaceTarget
from semanticspec.config import target_alone
from semanticspec.decoding.generate import generate_async
from semanticspec.decoding.pair import Model, Pair
from semanticspec.demo.grammar import problems
from semanticspec.engines.scripted import ScriptedEngine
from semanticspec.engines.transformers.engine import TransformersEngine
from semanticspec.errors import ConfigError, EngineError, PromptError
from semanticspec.loading import load_pair
from semanticspec.records import GREEDY, Sampling
from semanticspec.text.vocabulary import Vocabulary
from tests.support.distributions import dense
from tests.support.scripted_pairs import segment_texts
from tests.support.vocabularies import make_vocabulary

RAW = Sampling(temperature=1.0, top_p=1.0)
PROMPT = problems("validation", 1, seed=0)[0].text


@pytest.fixture(scope="module")
def bundled() -> Pair:
    return load_pair(dtype="float32", device="cpu")


def greedy(**changes) -> DecodingConfig:
    return DecodingConfig(**{"sampling": GREEDY, "max_new_tokens": 300} | changes)


# transformers' own generation


@pytest.mark.parametrize("name", ["hf-target", "hf-assisted"])
async def test_greedy_equals_our_target_alone_token_for_token(bundled, name):
    ours = await generate_async(bundled, PROMPT, target_alone(greedy()))
    theirs = await BASELINES[name](bundled, greedy()).solve(PROMPT, 0)
    assert theirs.token_ids == ours.token_ids
    assert (theirs.text, theirs.reasoning, theirs.answer) == (ours.text, ours.reasoning, ours.answer)
    assert theirs.finish_reason == ours.finish_reason == "stop"
    assert theirs.stats.num_tokens == len(ours.token_ids)
    assert theirs.stats.prompt_tokens == ours.stats.prompt_tokens


@pytest.mark.parametrize("name", ["hf-target", "hf-assisted"])
async def test_a_seed_fixes_the_text_and_leaves_torchs_own_alone(bundled, name):
    method = BASELINES[name](bundled, DecodingConfig(max_new_tokens=25))
    state = torch.random.get_rng_state()
    first, again, other = [await method.solve(PROMPT, seed) for seed in (1, 1, 2)]
    assert first.token_ids == again.token_ids != other.token_ids
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("name", ["hf-target", "hf-assisted"])
async def test_length_limit_is_kept(bundled, name):
    for limit in (1, 2, 7):
        result = await BASELINES[name](bundled, greedy(max_new_tokens=limit)).solve(PROMPT, 0)
        assert len(result.token_ids) == limit
        assert result.finish_reason == "length"
    with pytest.raises(PromptError, match="empty"):
        await BASELINES[name](bundled, greedy()).solve(" ", 0)


async def test_assisted_counts_what_the_draft_gave_and_where_time_went(bundled):
    stats = (await HuggingFaceAssisted(bundled, greedy()).solve(PROMPT, 0)).stats
    assert 0.3 * stats.num_tokens < stats.draft_tokens < stats.num_tokens
    assert stats.draft_tokens <= stats.drafted_tokens
    assert stats.draft_s > 0
    assert stats.verify_s > 0
    assert stats.rewrite_s == 0
    assert 0 < stats.overhead_s < stats.wall_s
    stats = (await HuggingFaceTarget(bundled, greedy()).solve(PROMPT, 0)).stats
    assert stats.draft_tokens == stats.drafted_tokens == 0
    assert stats.rewrite_s == pytest.approx(stats.wall_s, rel=0.2)


async def test_models_own_generation_settings_are_put_aside_and_left_as_they_are(bundled):
    model = await bundled.target.engine.run_with_model(lambda model: model)
    expected = await HuggingFaceTarget(bundled, greedy(max_new_tokens=30)).solve(PROMPT, 0)
    model.generation_config.repetition_penalty = 5.0
    try:
        result = await HuggingFaceTarget(bundled, greedy(max_new_tokens=30)).solve(PROMPT, 0)
        assert model.generation_config.repetition_penalty == 5.0
    finally:
        model.generation_config.repetition_penalty = None
    assert result.token_ids == expected.token_ids
    assert "forward" not in vars(model)


async def test_generation_runs_on_the_engines_thread_with_its_threads(bundled):
    threads = await bundled.target.engine.run_with_model(lambda _: torch.get_num_threads())
    assert threads == 1  # small models run on one
    with pytest.raises(EngineError, match="no such layer"):
        await bundled.target.engine.run_with_model(lambda _: (_ for _ in ()).throw(KeyError("no such layer")))


async def test_a_cancelled_generation_stops_and_leaves_the_engine_usable(bundled):
    method = HuggingFaceTarget(bundled, greedy(max_new_tokens=900))
    task = asyncio.create_task(method.solve(PROMPT, 0))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await HuggingFaceTarget(bundled, greedy(max_new_tokens=3)).solve(PROMPT, 0)).token_ids


def random_model(folder: Path, width: int, vocabulary: Vocabulary, seed: int) -> Model:
    """A tiny Llama with random weights that say something."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=width, initializer_range=0.3, max_position_embeddings=128, **sizes)
    config.bos_token_id = config.eos_token_id = None
    LlamaForCausalLM(config).save_pretrained(folder)
    return Model(TransformersEngine.load(str(folder), dtype="float32", device="cpu"), vocabulary)


async def test_assistant_with_more_or_fewer_unused_tokens(tmp_path):
    """As R1-Distill 1.5B beside 32B; what the draft says must not change what the target says."""
    target = random_model(tmp_path / "target", 10, make_vocabulary(), 0)
    for width in (9, 12):
        pair = Pair(target, random_model(tmp_path / f"draft-{width}", width, make_vocabulary(), 1))
        for sampling in (GREEDY, RAW):
            config = DecodingConfig(sampling=sampling, max_new_tokens=20)
            result = await HuggingFaceAssisted(pair, config).solve("ab", 0)
            assert result.stats.drafted_tokens > 0
            if sampling == GREEDY:
                assert result.token_ids == (await HuggingFaceTarget(pair, config).solve("ab", 0)).token_ids


async def test_assistant_with_another_tokenizer_is_for_greedy_only(tmp_path):
    target = random_model(tmp_path / "target", 10, make_vocabulary(), 0)
    other = make_vocabulary(["d", "c", "b", "a"])
    pair = Pair(target, random_model(tmp_path / "other", 9, other, 1))
    alone = await HuggingFaceTarget(pair, greedy(max_new_tokens=20)).solve("ab", 0)
    assisted = await HuggingFaceAssisted(pair, greedy(max_new_tokens=20)).solve("ab", 0)
    assert assisted.token_ids == alone.token_ids
    with pytest.raises(ConfigError, match="temperature 0"):
        await HuggingFaceAssisted(pair, DecodingConfig(sampling=RAW)).solve("ab", 0)
    pair = Pair(target, random_model(tmp_path / "same-width", 10, other, 1))
    with pytest.raises(ConfigError, match="both models have 10 tokens"):
        await HuggingFaceAssisted(pair, greedy()).solve("ab", 0)


async def test_assisted_sampling_keeps_the_targets_distribution(tmp_path):
    """The first token of three is drafted, so this fails if drafts were taken as they are."""
    pair = Pair(
        random_model(tmp_path / "target", 9, make_vocabulary(), 0),
        random_model(tmp_path / "draft", 9, make_vocabulary(), 1),
    )
    sampling = Sampling(temperature=1.0, top_p=0.8)

    async def first_token(model: Model) -> torch.Tensor:
        ids = pair.target.vocabulary.render_prompt("ab")
        (score,) = await model.engine.score(ids, [[0]], sampling=sampling, distributions=True)
        return dense(score.distributions, 9)[0]

    target, draft = await first_token(pair.target), await first_token(pair.draft)
    method = HuggingFaceAssisted(pair, DecodingConfig(sampling=sampling, max_new_tokens=3))
    trials = 150
    counts = torch.zeros(9)
    for seed in range(trials):
        counts[(await method.solve("ab", seed)).token_ids[0]] += 1
    assert 0.5 * (target - draft).abs().sum() > 0.35  # the two differ, so this can fail
    assert 0.5 * (counts / trials - target).abs().sum() < 0.15


def test_engines_without_transformers_are_refused():
    model = Model(ScriptedEngine(lambda _: [1.0, *[0.0] * 8], 9), make_vocabulary())
    for name in ("hf-target", "hf-assisted"):
        with pytest.raises(EngineError, match="does not run on transformers"):
            BASELINES[name](Pair(model, model), greedy())


# SpecReason. Scripted: the target's segments are "aaa", the draft's "bbb"; four of them, </think>, then "dd".

DIGITS = "0123456789"
LETTERS = ["a", "b", "c", "d", *DIGITS]
A, B, C, D, ZERO = range(5)
NEWLINE, BLANK, EOS, THINK, THINK_END = range(14, 19)
SIZE = 19
SCORING = ScoringPrompt.of(make_vocabulary(LETTERS))


def certainly(token_id: int) -> list[float]:
    return [float(i == token_id) for i in range(SIZE)]


def segments_of(letter: int):
    def says(ids: tuple[int, ...]) -> list[float]:
        output = ids[1:]
        if THINK_END in output:
            return certainly(D if len(output) - output.index(THINK_END) < 3 else EOS)
        if output.count(BLANK) >= 4:
            return certainly(THINK_END)
        since = next((n for n, i in enumerate(reversed(output)) if i == BLANK), len(output))
        return certainly(letter if since < 3 else BLANK)

    return says


class Scored:
    """A scripted target that answers the scoring prompt from a function of what comes before it."""

    def __init__(self, score) -> None:
        self.asked: list[tuple[int, ...]] = []
        self._score = score

    def __call__(self, ids: tuple[int, ...]) -> list[float]:
        length = len(SCORING.token_ids)
        if ids[-length:] == SCORING.token_ids:
            self.asked.append(ids[:-length])
            return self._score(ids[:-length])
        return segments_of(A)(ids)


def scored_pair(score, **engine) -> Pair:
    vocabulary = make_vocabulary(LETTERS)
    return Pair(
        Model(ScriptedEngine(Scored(score), SIZE, **engine), vocabulary),
        Model(ScriptedEngine(segments_of(B), SIZE), vocabulary),
    )


async def test_specreason_accepts_from_seven_on():
    pair = scored_pair(lambda _: certainly(ZERO + 7))
    result = await SpecReason(pair, greedy()).solve("a", 0)
    assert result.text == "bbb\n\n" * 4 + "</think>dd"
    assert [s.author for s in result.segments] == ["draft"] * 5 + ["target"]
    assert {s.reason for s in result.segments if s.accepted} == {"score 7"}
    assert result.stats.segments_accepted == 5
    assert result.stats.draft_tokens == 17
    assert result.lossy
    assert BASELINES["specreason"](pair, greedy()).lossy


async def test_specreason_rejecting_all_is_the_target_alone():
    for says in (ZERO + 6, C):  # C is no digit: 0
        pair = scored_pair(lambda _, says=says: certainly(says))
        result = await SpecReason(pair, greedy()).solve("a", 0)
        assert result.token_ids == (await generate_async(pair, "a", target_alone(greedy()))).token_ids
        assert result.stats.segments_rejected == 5
        assert result.stats.draft_tokens == 0
    result = await SpecReason(pair, greedy(), threshold=0).solve("a", 0)
    assert result.stats.segments_rejected == 0


async def test_specreason_asks_about_the_last_step_over_its_context():
    asked = Scored(lambda ids: certainly(ZERO + (9 if ids.count(BLANK) % 2 else 0)))
    pair = scored_pair(None)
    pair = replace(pair, target=Model(ScriptedEngine(asked, SIZE), pair.target.vocabulary))
    result = await SpecReason(pair, greedy()).solve("a", 0)
    assert result.text == "bbb\n\naaa\n\n" * 2 + "</think>dd"
    assert asked.asked[0] == (A, B, B, B, BLANK)
    assert asked.asked[1] == (A, B, B, B, BLANK, B, B, B, BLANK)
    assert asked.asked[2] == (A, B, B, B, BLANK, A, A, A, BLANK, B, B, B, BLANK)
    assert segment_texts(result.segments) == result.text


async def test_specreason_scores_by_greedy_or_average():
    def score(_: tuple[int, ...]) -> list[float]:  # the mean of the digits is 6.75
        return [0.44 * (i == ZERO + 9) + 0.36 * (i == ZERO + 4) + 0.2 * (i == C) for i in range(SIZE)]

    for threshold, score_method, accepts in (
        (7, "greedy", True),
        (7, "average", False),
        (6.7, "average", True),
    ):
        method = SpecReason(scored_pair(score), greedy(), threshold=threshold, score_method=score_method)
        assert bool((await method.solve("a", 0)).stats.segments_accepted) == accepts
    method = SpecReason(scored_pair(lambda _: certainly(C)), greedy(), score_method="average")
    assert (await method.solve("a", 0)).stats.segments_accepted == 0


async def test_specreason_end_of_text_limits_and_room():
    vocabulary = make_vocabulary(LETTERS)
    ends = Model(ScriptedEngine(lambda ids: certainly(B if len(ids) < 4 else EOS), SIZE), vocabulary)
    asked = Scored(lambda _: certainly(ZERO + 9))
    pair = Pair(Model(ScriptedEngine(asked, SIZE), vocabulary), ends)
    result = await SpecReason(pair, greedy()).solve("a", 0)
    assert (result.token_ids, result.finish_reason) == ((B, B, B, EOS), "stop")
    assert asked.asked == [(A, B, B, B)]  # the scoring prompt ends the turn itself
    for limit in (1, 4, 6):
        pair = scored_pair(lambda _: certainly(ZERO + 9))
        result = await SpecReason(pair, greedy(max_new_tokens=limit)).solve("a", 0)
        assert (len(result.token_ids), result.finish_reason) == (limit, "length")
    tight = scored_pair(lambda _: certainly(ZERO + 9), max_context_tokens=len(SCORING.token_ids) + 8)
    result = await SpecReason(tight, greedy()).solve("a", 0)
    assert [s.reason for s in result.segments[:2]] == ["score 9", "no room"]


def test_specreason_refuses_what_cannot_work():
    pair = scored_pair(lambda _: certainly(ZERO))
    with pytest.raises(ConfigError, match="threshold is 10"):
        SpecReason(pair, greedy(), threshold=10)
    with pytest.raises(ConfigError, match="score_method is 'best'"):
        SpecReason(pair, greedy(), score_method="best")
    model = Model(pair.target.engine, make_vocabulary())
    with pytest.raises(ConfigError, match="each digit as one token"):
        SpecReason(Pair(model, model), greedy())


def test_scoring_prompt_ends_the_turn_in_the_models_own_template(bundled):
    vocabulary = bundled.target.vocabulary
    prompt = ScoringPrompt.of(vocabulary)
    text = vocabulary.tokenizer.decode(prompt.token_ids)
    start, instruction, reply = text.partition(INSTRUCTION)
    assert start == "<|im_end|>\n<|im_start|>user\n"
    assert instruction
    assert reply == "<|im_end|>\n<|im_start|>assistant\n<think>\nI think the quality score is:"
    written = [vocabulary.decode([i]).strip() for i in prompt.digit_values]
    assert written == list(DIGITS)
    assert list(prompt.digit_values.values()) == list(range(10))


# Speculative Thinking. Scripted: the draft says "wait" after the first blank line, the target "check".

WORDS = ["a", "wait", "yes", "check"]
WAIT, YES, CHECK = 1, 2, 3
BREAK, END = 5, 6
SHORT = Takeovers(inspected_tokens=2, verification_tokens=3, negatives=9, recap_words="a", recap_tokens=2)


def watched(ids: tuple[int, ...]) -> list[float]:
    output = ids[1:]
    since = next((n for n, i in enumerate(reversed(output)) if i == BREAK), len(output))
    blanks = output.count(BREAK)
    says = END if blanks == 3 else WAIT if blanks == 1 and since == 0 else A if since < 3 else BREAK
    return [float(i == says) for i in range(9)]


def thinking_pair(after_blank_line: int = CHECK) -> Pair:
    vocabulary = make_vocabulary(WORDS)

    def target(ids: tuple[int, ...]) -> list[float]:
        return [float(i == (after_blank_line if ids[-1] == BREAK else A)) for i in range(9)]

    return Pair(
        Model(ScriptedEngine(target, 9), vocabulary),
        Model(ScriptedEngine(watched, 9), make_vocabulary(WORDS)),
    )


async def test_target_takes_over_where_the_draft_reflects():
    result = await SpeculativeThinking(thinking_pair(), greedy(), SHORT).solve("a", 0)
    drafted, taken, verified = [A, A, A, BREAK], [CHECK, A], [A, A, A]
    assert list(result.token_ids) == [*drafted, *taken, *verified, BREAK, A, A, A, BREAK, END]
    assert [s.reason for s in result.segments if s.accepted is not None] == ["reflects", "neutral", "neutral"]
    assert result.stats.draft_tokens == len(result.token_ids) - 5
    assert result.stats.drafted_tokens == result.stats.draft_tokens + 2
    assert segment_texts(result.segments) == result.text
    assert sum(s.num_tokens for s in result.segments if s.accepted is not False) == result.stats.num_tokens
    affirming = await SpeculativeThinking(thinking_pair(YES), greedy(), SHORT).solve("a", 0)
    assert list(affirming.token_ids[:8]) == [*drafted, YES, A, A, BREAK]  # nothing to verify: two tokens only


async def test_neutral_text_is_kept_up_to_its_first_blank_line():
    result = await SpeculativeThinking(thinking_pair(), greedy(), replace(SHORT, inspected_tokens=6)).solve(
        "a", 0
    )
    kept = [(s.text, s.num_tokens) for s in result.segments if s.accepted]
    assert kept == [
        ("aaa\n\n", 4),
        ("", 1),
    ]  # five were drafted at once; behind the blank line it is looked at anew
    assert result.finish_reason == "stop"


async def test_recap_after_enough_reflections():
    once = replace(SHORT, negatives=1, recap_words="aa")
    result = await SpeculativeThinking(thinking_pair(), greedy(), once).solve("a", 0)
    recap = [A, A, A, A]
    assert list(result.token_ids) == [A, A, A, BREAK, CHECK, A, A, A, A, BREAK, *recap, BREAK, END]
    for limit in (1, 5, 8, 11):
        cut = await SpeculativeThinking(thinking_pair(), greedy(max_new_tokens=limit), once).solve("a", 0)
        assert cut.token_ids == result.token_ids[:limit]
        assert cut.finish_reason == "length"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("so x", 0), ("Yes", 1), ("Wait, yes", -1), ("yes, confident; wait", 1), ("Check it", -1), ("eyes", 1)],
)
def test_tone_counts_words(text, expected):
    assert tone(text) == expected
