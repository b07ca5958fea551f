"""What preparing a pair will take on this machine: tokens, hours and disk, extrapolated from a few answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from semanticspec.decoding.pair import Model, Pair
from semanticspec.engines.base import derived_seed
from semanticspec.output.console import TableSection
from semanticspec.problems.sources import ProblemText
from semanticspec.records import Sampling
from semanticspec.training.settings import RunSettings

NUM_SAMPLE_PROBLEMS = 4
_BYTES_PER_VALUE = 4
# Training runs each token forward, and twice as much backward.
_PASSES_PER_TRAINED_TOKEN = 3
_MAX_SAMPLE_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Speeds:
    """Measured on a few problems that were answered at the same time.

    Attributes:
        answer_tokens: mean length of an answer of the target.
        segment_tokens: mean length of a segment.
        target_tokens_per_s, draft_tokens_per_s: decoded by all answers together.
        draft_prefill_tokens_per_s: read in one pass.
    """

    answer_tokens: float
    segment_tokens: float
    target_tokens_per_s: float
    draft_tokens_per_s: float
    draft_prefill_tokens_per_s: float


@dataclass(frozen=True, slots=True)
class Step:
    """A stage: tokens that the models write or read in it, seconds, and bytes it leaves on the disk."""

    name: str
    tokens: float
    seconds: float
    disk_bytes: float


async def measure_speeds(
    pair: Pair, problems: Sequence[ProblemText], sampling: Sampling, max_tokens: int
) -> Speeds:
    """Lets both models answer the first problems, all at once."""
    chosen = problems[:NUM_SAMPLE_PROBLEMS]
    max_tokens = min(max_tokens, _MAX_SAMPLE_TOKENS)
    answers, target_rate = await _answers(pair.target, chosen, sampling, max_tokens)
    _, draft_rate = await _answers(pair.draft, chosen, sampling, max_tokens)
    longest = max(answers, key=len)
    draft_ids = pair.to_draft.context_ids(longest)
    prompt_ids = pair.draft.vocabulary.render_prompt(chosen[0].prompt)
    start = time.perf_counter()
    await pair.draft.engine.score(prompt_ids, [draft_ids])
    seconds = time.perf_counter() - start
    segments = sum(len(pair.target.segmenter.split(list(answer))) for answer in answers)
    total = sum(map(len, answers))
    return Speeds(
        total / len(answers), total / max(1, segments), target_rate, draft_rate, len(draft_ids) / seconds
    )


async def _answers(
    model: Model, problems: Sequence[ProblemText], sampling: Sampling, max_tokens: int
) -> tuple[list[tuple[int, ...]], float]:
    """Returns the answers and how many tokens a second they took together."""
    prompts = [model.vocabulary.render_prompt(problem.prompt) for problem in problems]
    start = time.perf_counter()
    generations = await asyncio.gather(
        *(
            model.engine.generate(
                prompt,
                max_tokens=max(1, min(max_tokens, model.engine.info.max_context_tokens - len(prompt))),
                stop=model.segmenter.text_stop,
                sampling=sampling,
                seed=derived_seed(0, "plan", place),
            )
            for place, prompt in enumerate(prompts)
        )
    )
    seconds = time.perf_counter() - start
    answers = [generation.token_ids for (generation,) in generations]
    return answers, sum(map(len, answers)) / seconds


def plan(settings: RunSettings, num_problems: int, speeds: Speeds, pair: Pair) -> list[Step]:
    """Returns the stages that take long. Labelling and training probes take minutes and are left out."""
    steps = []
    if settings.align is not None:
        wanted = settings.align
        tokens = num_problems * wanted.answers.num_samples * speeds.answer_tokens
        steps.append(Step("answers of the target", tokens, tokens / speeds.target_tokens_per_s, 30 * tokens))
        trained = tokens * wanted.training.max_epochs
        seconds = _PASSES_PER_TRAINED_TOKEN * trained / speeds.draft_prefill_tokens_per_s
        steps.append(Step("training of the draft, at most", trained, seconds, 0))
    collect = settings.collect
    segments = speeds.answer_tokens / max(1.0, speeds.segment_tokens)
    contexts = num_problems * min(segments, collect.max_contexts or segments)
    sampled = contexts * collect.num_samples * speeds.segment_tokens
    traces = num_problems * speeds.answer_tokens * (1 if collect.one_trace else 2)
    seconds = (sampled + traces) / speeds.target_tokens_per_s + sampled / speeds.draft_tokens_per_s
    sizes = pair.target.engine.info.hidden_size + pair.draft.engine.info.hidden_size
    stored = 2 * contexts * collect.num_samples * sizes * _BYTES_PER_VALUE
    steps.append(Step("collecting", 2 * sampled + traces, seconds, stored))
    return steps


def table(steps: Sequence[Step]) -> TableSection:
    """Returns the plan as a table."""
    rows = {
        step.name: (f"{step.tokens:,.0f}", _hours(step.seconds), _size(step.disk_bytes)) for step in steps
    }
    total = sum(step.seconds for step in steps)
    rows["all"] = ("", _hours(total), _size(sum(step.disk_bytes for step in steps)))
    caption = f"Extrapolated from {NUM_SAMPLE_PROBLEMS} answers; batches may be faster, other programs make it slower."
    return TableSection("Plan", caption, ("tokens", "time", "disk"), rows)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 2**20:,.0f} MiB" if num_bytes else ""
