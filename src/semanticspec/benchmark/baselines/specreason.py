"""`specreason`: the target gives each drafted step a score from 0 to 9 with one token.

Source: SpecReason (Pan et al., arXiv 2504.07891, section 4) and its script `spec_reason.py`
(github.com/ruipeterpan/specreason): the scoring prompt, the threshold 7 and both score methods are theirs. Segment
ends, caches and the answer, which the target writes, are those of this package's loop. Differences from the original
are listed in docs/reference/baselines.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from semanticspec.config import DecodingConfig, RuleConfig, with_optimizations
from semanticspec.decoding.context import RequestContext
from semanticspec.decoding.draft import Draft
from semanticspec.decoding.generate import decode, result_of
from semanticspec.decoding.pair import Pair
from semanticspec.decoding.transcript import Transcript
from semanticspec.errors import ConfigError, EngineError
from semanticspec.records import GREEDY, Generation, Result, Sampling, Stop, Verdict
from semanticspec.text.chat import THINK_START
from semanticspec.text.vocabulary import Vocabulary

ScoreMethod = Literal["greedy", "average"]
THRESHOLD = 7.0
INSTRUCTION = (
    "Evaluate the last reasoning step solely based on factual correctness and logical validity. Ignore style, "
    "phrasing, or overall usefulness—only judge whether the step is objectively correct and logically follows from "
    "prior steps. Assign a score from 0 to 9."
)
ANSWER_START = "I think the quality score is: "
_DIGITS = "0123456789"
_NUM_CANDIDATES = 10  # Source: the script averages over the digits among the ten most probable tokens
_RAW = Sampling(temperature=1.0, top_p=1.0)


class SpecReason:
    """Accepts a drafted step when the target's score reaches the threshold. Lossy."""

    def __init__(
        self,
        pair: Pair,
        config: DecodingConfig,
        *,
        threshold: float = THRESHOLD,
        score_method: ScoreMethod = "greedy",
    ) -> None:
        """Prepares the scoring prompt.

        Args:
            config: its rule, optimizations and bonus token are ignored; everything else applies.
            threshold: lowest score that is accepted, 0 to 9 (0 accepts everything). Source: 7 in the script.
            score_method: `greedy` takes the target's most probable token, 0 if that is no digit; `average` the mean
                of the digits among the ten most probable tokens, weighted by probability. Source: greedy by default
                in the script.

        Raises:
            ConfigError: an option is out of range, or digits are not single tokens of the target.
            EngineError: `average` with an engine that gives no distributions.
        """
        if not 0 <= threshold <= 9:
            raise ConfigError(f"threshold is {threshold!r}; expected a score from 0 to 9")
        if score_method not in get_args(ScoreMethod):
            expected = ", ".join(get_args(ScoreMethod))
            raise ConfigError(f"score_method is {score_method!r}; expected one of {expected}")
        if score_method == "average" and not pair.target.engine.info.capabilities.distributions:
            raise EngineError(
                "specreason's score method 'average' needs full distributions, which the target's engine does not "
                "return; use 'greedy'"
            )
        self.name = "specreason"
        self.lossy = True
        self._pair = pair
        plain = with_optimizations(config, ())
        self._config = replace(plain, rule=RuleConfig(name="always"), bonus_token=False, speculate=True)
        pair.check(self._config)
        prompt = ScoringPrompt.of(pair.target.vocabulary)
        self._scoring = _Scoring(prompt, threshold, score_method)

    async def solve(self, prompt: str, seed: int) -> Result:
        """Answers a prompt; the same seed gives the same text. See `decode` for what it raises."""
        config = replace(self._config, seed=seed)
        events = decode(
            self._pair, prompt, config, verifier=lambda request: SpecReasonVerifier(request, self._scoring)
        )
        return await result_of(events)


@dataclass(frozen=True, slots=True)
class ScoringPrompt:
    """The tokens between a drafted step and its score.

    Attributes:
        token_ids: the end of the unfinished answer's turn, the instruction, and the start of the reply.
        digit_values: score by token id, for the ten digit tokens.
    """

    token_ids: tuple[int, ...]
    digit_values: dict[int, int]

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> ScoringPrompt:
        """Makes the prompt with a model's own chat template, and finds its tokenizer's digits after it.

        Raises:
            ConfigError: the digits are not ten different single tokens, or the template rejects a second question.
        """
        text = _scoring_text(vocabulary)
        written = [vocabulary.encode(text + digit) for digit in _DIGITS]
        starts = {tuple(ids[:-1]) for ids in written}
        values = {ids[-1]: value for value, ids in enumerate(written)}
        alone = all(
            vocabulary.decode([ids[-1]]).strip() == digit for ids, digit in zip(written, _DIGITS, strict=True)
        )
        if len(starts) != 1 or len(values) != len(_DIGITS) or not alone:
            raise ConfigError(
                "specreason reads a score from one token, and the target's tokenizer does not write each digit as one "
                "token of its own; leave this method out for this target"
            )
        return cls(starts.pop(), values)


@dataclass(frozen=True, slots=True)
class _Scoring:
    prompt: ScoringPrompt
    threshold: float
    method: ScoreMethod

    def score_of(self, reply: Generation) -> float:
        """Returns the score, 0 to 9, from the token that the target decodes after the scoring prompt."""
        values = self.prompt.digit_values
        if self.method == "greedy":
            return values.get(reply.token_ids[0], 0)
        assert reply.distributions is not None
        row = reply.distributions[0]
        candidates = row.token_ids[row.probabilities.argsort()[-_NUM_CANDIDATES:]].tolist()
        weights = {values[i]: float(row.of(i)) for i in candidates if i in values}
        total = sum(weights.values())
        return sum(value * weight for value, weight in weights.items()) / total if total else 0.0


class SpecReasonVerifier:
    """Asks the target to score each drafted step."""

    lossy = True
    needs_distributions = False

    def __init__(self, request: RequestContext, scoring: _Scoring) -> None:
        self._request, self._scoring = request, scoring

    async def verify(self, transcript: Transcript, draft: Draft) -> Verdict:
        """Prefills step and scoring prompt after the cached context in one pass of the target, and decodes one token.

        A step that leaves no room for the scoring prompt in the target's context is not scored but rejected.
        """
        engine = self._request.pair.target.engine
        context = [*transcript.target_ids, *self._step(draft), *self._scoring.prompt.token_ids]
        if len(context) >= engine.info.max_context_tokens:
            return Verdict(False, 0, "no room")
        average = self._scoring.method == "average"
        (reply,) = await engine.generate(
            context,
            max_tokens=1,
            stop=Stop(),
            sampling=_RAW if average else GREEDY,
            distributions=average,
            request_id=self._request.request_id,
        )
        score = self._scoring.score_of(reply)
        accepted = score >= self._scoring.threshold
        return Verdict(accepted, len(draft.token_ids) if accepted else 0, f"score {score:g}")

    def _step(self, draft: Draft) -> Sequence[int]:
        """Returns the step without an end-of-text token: the scoring prompt ends the turn itself."""
        ends = self._request.pair.target.vocabulary.end_ids
        return draft.token_ids[:-1] if draft.token_ids[-1] in ends else draft.token_ids


def _scoring_text(vocabulary: Vocabulary) -> str:
    """Returns the end of the answer's turn, the instruction and the start of the reply, as text."""
    if not vocabulary.has_chat_template:
        return f"\n\n{INSTRUCTION}\n\n{ANSWER_START}"
    mark = "STEPS-SO-FAR"
    messages = [
        {"role": "user", "content": "problem"},
        {"role": "assistant", "content": mark},
        {"role": "user", "content": INSTRUCTION},
    ]
    try:
        text: str = vocabulary.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
    except Exception as error:
        raise ConfigError(
            f"specreason asks a second question, and the target's template fails: {error}"
        ) from error
    _, found, after = text.partition(mark)
    if not found or INSTRUCTION not in after:
        raise ConfigError("specreason asks a second question, which the target's chat template leaves out")
    opens = vocabulary.think_start_id is not None and not vocabulary.opens_thinking(vocabulary.encode(after))
    return after + (THINK_START if opens else "") + ANSWER_START
