"""Measures outcomes: lets the target continue from after draft-written segments, and grades the answers it reaches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random

from semanticspec.benchmark.grading import Grader
from semanticspec.benchmark.grading_worker import Grade
from semanticspec.decoding.pair import Model
from semanticspec.engines.base import derived_seed
from semanticspec.errors import ConfigError
from semanticspec.problems.sources import ProblemText
from semanticspec.records import Sampling
from semanticspec.text.segments import BOUNDARY
from semanticspec.training.concurrency import work_on
from semanticspec.training.data.storage import Collection, ContextRecord, SegmentRecord, Shard
from semanticspec.training.labels.outcomes import OutcomeSettings, OutcomeStore, ProblemOutcomes, unmeasured

_CONCURRENT_SAMPLES = 96
_MIN_VOTES = 2
_ANY_GOLD = "0"  # where only the answer itself is wanted of a grade


async def measure_outcomes(
    target: Model,
    collection: Collection,
    settings: OutcomeSettings,
    golds: Mapping[str, str],
    grader: Grader,
    *,
    max_problems: int | None = None,
    concurrency: int | None = None,
    on_progress: Callable[[ProblemOutcomes | None], None] = lambda _: None,
) -> dict[str, ProblemOutcomes]:
    """Measures the problems that have not been measured yet, and stores each as it is finished.

    The target continues with the sampling settings of the collection. The prompt is rendered again, and context and
    segment are encoded again from their text. A segment that ended the text is graded as it is.

    Args:
        golds: right answers by problem; where there is none, the most frequent one of the target's own answers.
        max_problems: measures the first so many problems that have segments, in the collection's order; None = all.
        concurrency: problems at the same time, whose calls the engine batches; None = so many that about 96 samples
            are decoded together.
        on_progress: called with each new record, and with None for one that existed before.

    Returns:
        The outcomes by problem.

    Raises:
        ConfigError: the target has another vocabulary than the collection's.
        ProbeError: there is no collection, or outcomes of it were measured with other settings.
    """
    fingerprint = collection.manifest.target.fingerprint
    if target.vocabulary.fingerprint != fingerprint:
        raise ConfigError(
            f"the collection is of a target with the vocabulary {fingerprint!r}; {target.engine.info.model_id!r} has "
            f"{target.vocabulary.fingerprint!r}; use the same target"
        )
    info = target.engine.info
    store = OutcomeStore(collection)
    store.open(settings, {"model": info.model_id, "revision": info.revision})
    sampling = Sampling(**collection.manifest.config["sampling"])
    grading = _Grading(grader)

    async def work(shard: Shard) -> None:
        if store.has(shard):
            on_progress(None)
            return
        measured = await _Measurer(target, settings, sampling, shard, grading).run(
            golds.get(shard.problem_id, "")
        )
        store.add(measured)
        on_progress(measured)

    if concurrency is None:
        rows = settings.num_samples * (settings.segments_per_context + settings.baseline)
        concurrency = max(2, _CONCURRENT_SAMPLES // rows)
    await work_on(measurable(collection, max_problems), work, concurrency)
    return dict(store.measured)


def measurable(collection: Collection, max_problems: int | None = None) -> list[Shard]:
    """Returns the first problems that have draft-written segments."""
    found = [shard for shard in collection if any(one.author == "draft" for one in shard.segments)]
    return found[:max_problems]


def golds_of(shards: Iterable[Shard], problems: Iterable[ProblemText]) -> dict[str, str]:
    """Returns the right answers of collected problems, as far as they are known.

    Raises:
        ConfigError: a problem with the id of a collected one is another problem.
    """
    by_id = {problem.problem_id: problem for problem in problems}
    golds = {}
    for shard in shards:
        problem = by_id.get(shard.problem_id)
        if problem is not None and problem.prompt not in shard.prompt:
            raise ConfigError(
                f"problem {shard.problem_id!r} has another text in the collection; give the problems that were "
                "collected on"
            )
        if problem is not None and (gold := problem.gold):
            golds[shard.problem_id] = gold
    return golds


class _Grading:
    """A grader that concurrent tasks share; it grades one answer at a time, off the event loop."""

    def __init__(self, grader: Grader) -> None:
        self._grader, self._lock = grader, asyncio.Lock()

    async def grade(self, text: str, gold: str, *, truncated: bool) -> Grade:
        async with self._lock:
            return await asyncio.to_thread(self._grader.grade, text, gold, truncated=truncated)

    async def majority(self, texts: Sequence[tuple[str, bool]]) -> str:
        """Returns the most frequent answer of texts, given as (text, truncated); "" if no two agree.

        Answers that the grader takes for equal count together.
        """
        grades = [await self.grade(text, _ANY_GOLD, truncated=cut) for text, cut in texts]
        answers = list(dict.fromkeys(grade.answer for grade in grades if grade.answer))
        votes = {answer: sum([await self._equals(one, answer) for one in texts]) for answer in answers}
        best = max(answers, key=lambda answer: votes[answer], default="")
        return best if votes.get(best, 0) >= _MIN_VOTES else ""

    async def _equals(self, text: tuple[str, bool], answer: str) -> bool:
        return (await self.grade(text[0], answer, truncated=text[1])).right


class _Measurer:
    """Measures one problem."""

    def __init__(
        self, target: Model, settings: OutcomeSettings, sampling: Sampling, shard: Shard, grading: _Grading
    ) -> None:
        self.target, self.settings, self.sampling = target, settings, sampling
        self.shard, self.grading = shard, grading
        self.prompt_ids = target.vocabulary.render_prompt(shard.prompt)

    async def run(self, gold: str) -> ProblemOutcomes:
        """Returns the problem's outcomes; none are measured if there is no reference answer."""
        reference = gold or await self._majority()
        empty = unmeasured(self.shard)
        if not reference:
            return empty
        chosen = [
            (context, index, self.shard.segments[index])
            for context in self.shard.contexts
            for index in self._chosen(context)
        ]
        after, before = await asyncio.gather(
            asyncio.gather(
                *(self._after(context, index, segment, reference) for context, index, segment in chosen)
            ),
            asyncio.gather(
                *(
                    self._continued(context.text, f"context {context.context_id}", reference)
                    for context in self.shard.contexts
                    if self.settings.baseline
                )
            ),
        )
        contexts = [context.context_id for context in self.shard.contexts] if self.settings.baseline else []
        return empty.model_copy(
            update={
                "reference": reference,
                "source": "gold" if gold else "majority",
                "segments": {str(i): right for (_, i, _), right in zip(chosen, after, strict=True) if right},
                "contexts": {name: right for name, right in zip(contexts, before, strict=True) if right},
            }
        )

    def _chosen(self, context: ContextRecord) -> list[int]:
        """Draws the numbers of the context's segments to continue from."""
        drafted = [
            i
            for i, segment in enumerate(self.shard.segments)
            if segment.author == "draft" and segment.context_id == context.context_id
        ]
        random = Random(
            derived_seed(self.settings.seed, "outcomes", self.shard.problem_id, context.context_id)
        )
        return sorted(random.sample(drafted, min(len(drafted), self.settings.segments_per_context)))

    async def _after(
        self, context: ContextRecord, index: int, segment: SegmentRecord, reference: str
    ) -> list[bool]:
        text = context.text + segment.text
        if self._ends_text(context, segment):
            grade = await self.grading.grade(text, reference, truncated=False)
            return [grade.right] * self.settings.num_samples
        return await self._continued(text, f"segment {index}", reference)

    def _ends_text(self, context: ContextRecord, segment: SegmentRecord) -> bool:
        """Whether a segment stopped at the end of the text: neither at a blank line nor at the end of thinking."""
        joined = context.text[-1:] + segment.text
        think_end = self.target.vocabulary.think_tags.end
        return segment.stop_reason == "stop" and BOUNDARY not in joined and think_end not in joined

    async def _continued(self, text: str, purpose: str, reference: str) -> list[bool]:
        """Returns whether each continuation of an output is right; an empty list if there is no room for any."""
        outputs = await self._outputs(text, purpose, self.settings.num_samples)
        return [(await self.grading.grade(one, reference, truncated=cut)).right for one, cut in outputs]

    async def _majority(self) -> str:
        return await self.grading.majority(await self._outputs("", "reference", self.settings.num_references))

    async def _outputs(self, text: str, purpose: str, count: int) -> list[tuple[str, bool]]:
        """Returns whole outputs that begin with a text, and whether each was cut off at the length limit."""
        vocabulary, info = self.target.vocabulary, self.target.engine.info
        ids = [*self.prompt_ids, *vocabulary.encode(text)]
        max_tokens = min(self.settings.max_new_tokens, info.max_context_tokens - len(ids))
        if max_tokens < 1:
            return []
        generations = await self.target.engine.generate(
            ids,
            n=count,
            max_tokens=max_tokens,
            stop=self.target.segmenter.text_stop,
            sampling=self.sampling,
            seed=derived_seed(self.settings.seed, "outcomes", self.shard.problem_id, purpose),
        )
        return [(text + vocabulary.decode(one.token_ids), one.stop_reason == "length") for one in generations]
