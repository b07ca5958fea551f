"""First stage: samples target and draft in contexts as they occur in use.

For each problem the target and the speculative loop write one reasoning trace each (or it is given), see `contexts`.
At the ends of their segments both models write the next segment `num_samples` times, and the target scores every
distinct segment, its own included, so that all of its states and log-probabilities come from the same kind of pass.

Source: the paper's data collection. Deviations: the paper takes no contexts from the loop, and trains the target's
probe on segments by the target only, although in use it judges segments by the draft.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from semanticspec.decoding.pair import Model, Pair
from semanticspec.engines.base import EngineInfo, derived_seed
from semanticspec.errors import ConfigError, PromptError
from semanticspec.probes.states import Ragged, States
from semanticspec.problems.sources import ProblemText
from semanticspec.records import Author, Generation, Score, Stop
from semanticspec.training.concurrency import work_on
from semanticspec.training.data.answers import WrittenAnswers
from semanticspec.training.data.contexts import ContextFinder, check_trace, loop_config
from semanticspec.training.data.manifest import CollectedModel, Manifest
from semanticspec.training.data.settings import CollectConfig
from semanticspec.training.data.storage import Collection, ContextRecord, SegmentRecord, Shard

_MIN_LOGPROB = -1e4  # nats; keeps the log-probability of impossible tokens finite
_Sample = tuple[
    Author, Generation, int, tuple[int, ...]
]  # author, segment, count, ids in the target's vocabulary
_Row = tuple[SegmentRecord, Tensor, Tensor]  # a segment, its target state, its draft state


async def collect(
    pair: Pair,
    problems: Iterable[ProblemText],
    config: CollectConfig,
    folder: Path | str,
    *,
    concurrency: int | None = None,
    answers: WrittenAnswers | None = None,
    on_progress: Callable[[Shard | None], None] = lambda _: None,
) -> Collection:
    """Collects on all problems that are not finished yet, and stores each as it is finished.

    The rows of a problem depend on the models, the configuration and the problem only, not on the other problems (as
    far as the engine's arithmetic does not depend on the batch).

    Args:
        pair: the models.
        problems: with distinct ids.
        config: the settings.
        folder: the folder of the collection; an unfinished collection with the same models and settings is resumed.
        concurrency: number of problems in progress at once, whose calls the engines batch; None = as many as
            `CollectConfig.default_concurrency` says.
        answers: of the target to these problems; contexts come from them instead of from traces that it would write.
        on_progress: called with each finished shard, and with None for each problem that was finished before.

    Raises:
        ProbeError: the folder holds a collection of other models or settings, or cannot be written to.
        ConfigError: two problems have the same id, a given trace cannot be split into segments, or the answers are to
            other prompts or in another vocabulary.
    """
    listed = list(problems)
    if len({problem.problem_id for problem in listed}) < len(listed):
        raise ConfigError("two problems have the same id; give each its own, because ids decide the split")
    for problem in listed:
        check_trace(pair.target, problem)
    for rule in config.loop_rules:
        pair.check(loop_config(config, rule))
    if answers is not None:
        answers.check(pair.target, listed)
    collection = Collection(folder)
    collection.open(_manifest(pair, config, answers))

    async def work(problem: ProblemText) -> None:
        if collection.has(problem.problem_id):
            on_progress(None)
            return
        shard = await _Collector(pair, config, problem, answers).run()
        collection.write(shard)
        on_progress(shard)

    await work_on(listed, work, config.default_concurrency if concurrency is None else concurrency)
    return collection


class _Collector:
    """Collects on one problem."""

    def __init__(
        self, pair: Pair, config: CollectConfig, problem: ProblemText, answers: WrittenAnswers | None
    ) -> None:
        self.pair, self.config, self.problem = pair, config, problem
        self.seed = derived_seed(config.seed, "collect", problem.problem_id)
        self.answer = () if answers is None else answers.of(problem.problem_id, self.seed)

    async def run(self) -> Shard:
        """Returns the shard of the problem, which is empty if the prompt leaves no room for an answer."""
        try:
            finder = ContextFinder(self.pair, self.config, self.problem, self.seed, self.answer)
            contexts = await finder.find()
        except PromptError as error:
            return self._shard([], [], str(error))
        target_prompt = self.pair.target.vocabulary.render_prompt(self.problem.prompt)
        draft_prompt = self.pair.render_draft_prompt(self.problem.prompt, target_prompt)
        records: list[ContextRecord] = []
        rows: list[_Row] = []
        for index, context in enumerate(contexts):
            written = [i for segment in context.segments for i in segment]
            draft_ids = [*draft_prompt, *self.pair.to_draft.context_ids(written)]
            found = await self._rows(str(index), [*target_prompt, *written], draft_ids)
            if found:  # otherwise there is no room for another segment
                text = self.pair.target.vocabulary.decode(written)
                records.append(ContextRecord(str(index), context.origin, text))
                rows += found
        return self._shard(records, rows, "" if rows else "the prompt leaves no room for a segment")

    async def _rows(self, context_id: str, target_ids: list[int], draft_ids: list[int]) -> list[_Row]:
        """Samples both models in one context; returns segments with their target and draft states."""
        pair = self.pair
        draft_stop = pair.draft_stop(pair.draft.segmenter.stop)
        by_target, by_draft = await asyncio.gather(
            self._sample(pair.target, target_ids, pair.target.segmenter.stop, f"target {context_id}"),
            self._sample(pair.draft, draft_ids, draft_stop, f"draft {context_id}"),
        )
        samples: list[_Sample] = [
            ("target", own, count, own.token_ids) for own, count in _distinct(by_target)
        ]
        for own, count in _distinct(by_draft):
            ids = tuple(pair.to_target.ids(own.token_ids))
            if ids and len(target_ids) + len(ids) <= _max_context_tokens(pair.target):
                samples.append(("draft", own, count, ids))
        continuations = list(dict.fromkeys(ids for *_, ids in samples))
        if not continuations:
            return []
        scores = await pair.target.engine.score(target_ids, continuations, signals=True)
        by_ids = dict(zip(continuations, scores, strict=True))
        return [self._row(context_id, sample, by_ids[sample[-1]]) for sample in samples]

    def _row(self, context_id: str, sample: _Sample, score: Score) -> _Row:
        author, own, count, _ = sample
        draft = self.pair.draft.engine.info
        drafted = author == "draft"
        record = SegmentRecord(
            context_id=context_id,
            author=author,
            text=(self.pair.draft if drafted else self.pair.target).vocabulary.decode(own.token_ids),
            token_ids=own.token_ids,
            count=count,
            stop_reason=own.stop_reason,
            target_logprobs=_bounded(score.logprobs),
            draft_logprobs=_bounded(own.logprobs) if drafted else (),
            target_ranks=score.ranks,
            target_entropies=score.entropies,
            target_margins=score.margins,
        )
        no_state = torch.zeros((0,) * (draft.pooling == "none") + (draft.hidden_size,))
        return record, _to_cpu(score.pooled_state), _to_cpu(own.pooled_state) if drafted else no_state

    async def _sample(self, model: Model, ids: list[int], stop: Stop, purpose: str) -> list[Generation]:
        """Samples the next segment `num_samples` times; truncates it after a `</think>` in plain text."""
        max_tokens = min(self.config.max_segment_tokens, _max_context_tokens(model) - len(ids))
        if max_tokens < 1:
            return []
        generations = await model.engine.generate(
            ids,
            n=self.config.num_samples,
            max_tokens=max_tokens,
            stop=stop,
            sampling=self.config.sampling,
            seed=derived_seed(self.seed, purpose),
        )
        for index, generation in enumerate(generations):
            end = model.segmenter.think_end(generation.token_ids)
            if end is not None and end < len(generation.token_ids):
                kept = generation.token_ids[:end]
                (score,) = await model.engine.score(ids, [kept])
                generations[index] = Generation(score.logprobs, score.pooled_state, None, kept, "stop")
        return generations

    def _shard(self, contexts: list[ContextRecord], rows: list[_Row], skipped: str = "") -> Shard:
        return Shard(
            problem_id=self.problem.problem_id,
            prompt=self.problem.prompt,
            contexts=tuple(contexts),
            segments=tuple(record for record, _, _ in rows),
            target_states=_joined([state for _, state, _ in rows], self.pair.target.engine.info),
            draft_states=_joined([state for _, _, state in rows], self.pair.draft.engine.info),
            skipped=skipped,
        )


def _distinct(generations: Sequence[Generation]) -> list[tuple[Generation, int]]:
    """Merges generations with equal tokens and counts them."""
    counts = Counter(generation.token_ids for generation in generations)
    first = {generation.token_ids: generation for generation in reversed(generations)}
    return [(first[ids], count) for ids, count in counts.items()]


def _bounded(logprobs: Sequence[float]) -> tuple[float, ...]:
    return tuple(max(value, _MIN_LOGPROB) for value in logprobs)


def _to_cpu(state: Tensor) -> Tensor:
    return state.detach().to("cpu", torch.float32)


def _joined(states: list[Tensor], info: EngineInfo) -> States:
    if info.pooling == "none":
        return Ragged.of(states, info.hidden_size)
    return torch.stack(states) if states else torch.zeros(0, info.hidden_size)


def _max_context_tokens(model: Model) -> int:
    return model.engine.info.max_context_tokens


def _manifest(pair: Pair, config: CollectConfig, answers: WrittenAnswers | None) -> Manifest:
    probes = {
        role: getattr(getattr(probe, "card", None), "weights_digest", "")
        for role, probe in (("target", pair.target_probe), ("draft", pair.draft_probe))
        if any(rule.needs_probes for rule in config.loop_rules)
    }
    return Manifest(
        target=CollectedModel.of(pair.target.engine.info, pair.target.vocabulary.fingerprint),
        draft=CollectedModel.of(pair.draft.engine.info, pair.draft.vocabulary.fingerprint),
        config=config.recorded() | ({"answers": answers.made_by} if answers is not None else {}),
        probes=probes,
        versions={name: version(name) for name in ("semanticspec", "torch", "transformers")},
    )
