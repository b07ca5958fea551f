"""Random small pairs and configurations, with the exact distribution of the target's output.

Source of the idea: whatever a lossless configuration does with a draft, the output's distribution is the target's.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, replace
from random import Random

from scipy.stats import chi2

from semanticspec import DecodingConfig, RuleConfig
from semanticspec.decoding.generate import generate_async
from semanticspec.decoding.pair import Model, Pair
from semanticspec.engines.scripted import ScriptedEngine, under_sampling
from semanticspec.records import Sampling
from semanticspec.text.vocabulary import Vocabulary
from tests.support.vocabularies import make_vocabulary

NUM_TOKENS = 4
PROMPT = "a"
Row = dict[str, float]
Chain = dict[str, Row]
"""Probabilities of the next token, by the last token; tokens by their text."""

ORDINARY = ("a", "b", "\n")
BLANK, EOS, THINK, THINK_END, EXTRA = "\n\n", "<eos>", "<think>", "</think>", "<extra>"


@dataclass(frozen=True)
class Side:
    """One model: its vocabulary, and its chain over the vocabulary's tokens."""

    vocabulary: Vocabulary
    chain: Chain
    padding: int = 0

    def model(self) -> Model:
        ids = token_ids(self.vocabulary)
        size = max(ids.values()) + 1 + self.padding
        texts = {i: text for text, i in ids.items()}

        def next_probabilities(context: tuple[int, ...]) -> list[float]:
            row = [0.0] * size
            for text, probability in self.chain[texts[context[-1]]].items():
                row[ids[text]] = probability
            return row

        return Model(ScriptedEngine(next_probabilities, size), self.vocabulary)


@dataclass(frozen=True)
class Case:
    """A pair, a configuration, and what to call it in a failure."""

    target: Side
    draft: Side
    config: DecodingConfig

    def pair(self) -> Pair:
        return Pair(self.target.model(), self.draft.model())

    def exact(self) -> dict[tuple[int, ...], float]:
        """The distribution of the target's output ids, up to `NUM_TOKENS` tokens."""
        model = self.target.model()
        prompt = model.vocabulary.render_prompt(PROMPT)
        found: dict[tuple[int, ...], float] = {}

        def extend(output: tuple[int, ...], mass: float) -> None:
            ended = bool(output) and output[-1] in model.vocabulary.end_ids
            if ended or len(output) == self.config.max_new_tokens:
                found[output] = found.get(output, 0.0) + mass
                return
            engine = model.engine
            assert isinstance(engine, ScriptedEngine)
            row = under_sampling(engine._next((*prompt, *output)), self.config.sampling)
            for token_id, probability in enumerate(row):
                if probability > 0:
                    extend((*output, token_id), mass * probability)

        extend((), 1.0)
        return found

    def sample(self, trials: int) -> Counter[tuple[int, ...]]:
        """Counts of output ids over seeds."""

        async def run() -> Counter[tuple[int, ...]]:
            pair = self.pair()
            seen: Counter[tuple[int, ...]] = Counter()
            for seed in range(trials):
                result = await generate_async(pair, PROMPT, replace(self.config, seed=seed))
                assert result.lossy is False
                seen[result.token_ids] += 1
            return seen

        return asyncio.run(run())

    def p_value(self, trials: int) -> float:
        """Of the chi-square test that the output has the target's distribution. Rare outputs count together."""
        expected = self.exact()
        seen = self.sample(trials)
        assert set(seen) <= set(expected), f"outputs that the target never gives: {set(seen) - set(expected)}"
        rare = [output for output, mass in expected.items() if mass * trials < 5]
        bins = [(seen[output], mass * trials) for output, mass in expected.items() if output not in set(rare)]
        rest = sum(expected[output] for output in rare) * trials
        if rest > 1e-9:
            bins.append((sum(seen[output] for output in rare), rest))
        if len(bins) < 2:
            return 1.0
        statistic = sum((count - mean) ** 2 / mean for count, mean in bins)
        return float(chi2.sf(statistic, len(bins) - 1))


def token_ids(vocabulary: Vocabulary) -> dict[str, int]:
    """Every token of a vocabulary by its text."""
    return {text.replace("Ċ", "\n"): i for text, i in vocabulary.tokenizer.get_vocab().items()}


def random_case(seed: int) -> Case:
    """A random pair with a lossless configuration."""
    random = Random(seed)
    blank_line = random.random() < 0.7
    added = [EOS, THINK, THINK_END]
    target_vocabulary = _vocabulary(added, blank_line)
    draft_added = list(added)
    kind = random.choice(["equal", "permuted", "unmapped"])
    if kind == "permuted":
        random.shuffle(draft_added)
    if kind == "unmapped":
        draft_added.insert(random.randrange(4), EXTRA)
    draft_vocabulary = _vocabulary(draft_added, blank_line)
    target = Side(target_vocabulary, _chain(random, target_vocabulary), padding=random.choice([0, 2]))
    draft = Side(draft_vocabulary, _chain(random, draft_vocabulary), padding=random.choice([0, 3]))
    return Case(target, draft, _config(random))


def _vocabulary(added: list[str], blank_line: bool) -> Vocabulary:
    return make_vocabulary(ORDINARY[:2], added=added, blank_line=blank_line)


def _config(random: Random) -> DecodingConfig:
    return DecodingConfig(
        rule=RuleConfig(random.choice(["token", "token", "never"])),
        sampling=random.choice([Sampling(1.0, 1.0), Sampling(0.7, 0.9)]),
        max_new_tokens=NUM_TOKENS,
        max_segment_tokens=random.choice([1, 2, 3, 10]),
        first_segment=random.choice(["draft", "draft", "target"]),
        judge_think_end=random.random() < 0.6,
        speculate_answer=random.random() < 0.5,
        partial_acceptance=random.random() < 0.6,
        num_speculative_tokens=random.choice([0, 1, 3, 8]),
        min_proposal_likelihood=random.choice([0.0, 0.1, 0.5, 1.0]),
        overlap=random.random() < 0.3,
        max_repeated_tokens=random.choice([0, 1]),
    )


def _chain(random: Random, vocabulary: Vocabulary) -> Chain:
    texts = [text for text in token_ids(vocabulary) if text != THINK]
    chain = {}
    for last in [*texts, THINK]:
        weights = {text: random.random() ** 3 for text in texts}
        for text in random.sample(texts, len(texts) // 3):
            weights[text] = 0.0
        if not any(weights.values()):
            weights[texts[0]] = 1.0
        total = sum(weights.values())
        chain[last] = {text: weight / total for text, weight in weights.items()}
    return chain
