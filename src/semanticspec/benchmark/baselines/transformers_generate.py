"""transformers' own generation on the same weights: `hf-target` (plain) and `hf-assisted` (with the draft).

Both run on the target engine's thread, so with its number of CPU threads, and with transformers' default dynamic
cache, not with the engine's prefix cache. The models' own generation defaults (top-k, penalties) are ignored: all
methods of a comparison use the same sampling. See docs/reference/baselines.md.
"""

from __future__ import annotations

import copy
import functools
import importlib.util
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

from semanticspec.config import DecodingConfig, target_alone
from semanticspec.decoding.clock import Clock
from semanticspec.decoding.pair import Model, Pair
from semanticspec.decoding.transcript import Transcript
from semanticspec.errors import ConfigError, EngineError
from semanticspec.records import Result, Sampling

T = TypeVar("T")


@runtime_checkable
class RunsTransformers(Protocol):
    """An engine that can run a function with its transformers model, see `TransformersEngine`."""

    async def run_with_model(self, function: Callable[[Any], T]) -> T: ...

    def load_beside(self, model: str) -> Any: ...


class HuggingFaceTarget:
    """`hf-target`: the target's `model.generate`. Lossless: only the target writes.

    The result has one segment, by the target; the time of `generate` counts as `rewrite_s`.
    """

    def __init__(self, pair: Pair, config: DecodingConfig) -> None:
        """Raises EngineError if the target does not run on transformers."""
        self.name = "hf-target"
        self.lossy = False
        self._pair, self._config = pair, target_alone(config)
        self._engine = _engine_of(self.name, "target", pair.target)

    async def solve(self, prompt: str, seed: int) -> Result:
        """Answers a prompt; the same seed gives the same text. See `decode` for what it raises."""
        run = _GenerateRequest(self._pair, replace(self._config, seed=seed), prompt)
        return await run.result(self._engine, lambda model: run.write(_CountedModel.of(model, run.cancelled)))


class HuggingFaceAssisted:
    """`hf-assisted`: `model.generate(assistant_model=...)` with transformers' defaults for the assistant.

    As of transformers 5, these are: at most 20 drafted tokens per round, fewer if the draft's probability of a token
    falls below 0.4, a threshold that each call adapts if scikit-learn is installed.

    Lossless: greedy decoding compares the most probable tokens; with sampling, each drafted token is kept with
    probability min(1, target / draft), and a rejected one is redrawn from the residual (Leviathan et al. 2023), both
    under temperature and top-p. transformers passes the target's logits processors to the draft, which applies its
    own as well, so the draft samples at the square of the temperature (0.36 for 0.6). The ratio uses this actual
    distribution, so acceptance changes, but not the output's distribution.

    In the result, on CPUs, `draft_s` and `verify_s` are the seconds in the two models' forward passes, and the rest of
    `wall_s` is `generate`'s own work. GPUs run asynchronously, so there only `wall_s` is measured. `draft_tokens` are
    accepted drafted tokens; the last token of a round counts as the target's. Tokens are not grouped into segments,
    so there is one segment, listed as the target's.

    A draft that runs on another engine is loaded again with transformers, in the target's dtype.
    """

    def __init__(self, pair: Pair, config: DecodingConfig) -> None:
        """Raises EngineError if the target does not run on transformers, ModelError if the draft cannot."""
        self.name = "hf-assisted"
        self.lossy = False
        self._pair, self._config = pair, target_alone(config)
        self._engine = _engine_of(self.name, "target", pair.target)
        self._loaded_draft: Any = None
        if not isinstance(pair.draft.engine, RunsTransformers):
            self._loaded_draft = self._engine.load_beside(pair.draft.engine.info.model_id)
        vocabularies = [model.vocabulary.tokenizer.get_vocab() for model in (pair.target, pair.draft)]
        self._same_tokens = vocabularies[0] == vocabularies[1]
        if importlib.util.find_spec("sklearn") is not None:
            import sklearn.metrics  # noqa: F401  # transformers imports it in the middle of the first request

    async def solve(self, prompt: str, seed: int) -> Result:
        """Answers a prompt; the same seed gives the same text. See `decode` for what it raises.

        Raises:
            ConfigError: transformers has no assisted generation for this pair of tokenizers.
        """
        engine = self._pair.draft.engine
        draft_model = self._loaded_draft
        if isinstance(engine, RunsTransformers):
            draft_model = await engine.run_with_model(lambda model: model)
        run = _GenerateRequest(self._pair, replace(self._config, seed=seed), prompt)

        def write(model: Any) -> list[int]:
            width, options = self._for_assistant(_width(model), _width(draft_model))
            target = _CountedModel.of(model, run.cancelled)
            draft = _CountedModel.of(draft_model, run.cancelled, width)
            ids = run.write(target, assistant_model=draft.model, **options)
            run.count(draft, target, len(ids))
            return ids

        return await run.result(self._engine, write)

    def _for_assistant(self, width: int, draft_width: int) -> tuple[int, dict[str, Any]]:
        """Returns the vocabulary size to present for the draft, and the further arguments of `generate`.

        Raises:
            ConfigError: transformers cannot assist this target with this draft, or would change its output.
        """
        if self._same_tokens or (width == draft_width and self._pair.same_vocabulary):
            return width, {}
        if width == draft_width:
            raise ConfigError(
                f"hf-assisted cannot run this pair: its tokenizers differ, but both models have {width} tokens, from "
                "which transformers concludes that they are the same; leave this method out"
            )
        if self._config.sampling.temperature > 0:
            raise ConfigError(
                "hf-assisted cannot run this pair with sampling: its tokenizers differ, and what transformers does "
                "then changes the target's distribution (docs/reference/baselines.md); use temperature 0, or leave "
                "this method out"
            )
        return draft_width, {
            "tokenizer": self._pair.target.vocabulary.tokenizer,
            "assistant_tokenizer": self._pair.draft.vocabulary.tokenizer,
        }


class _GenerateRequest:
    """One request, answered by one call of transformers' `generate`."""

    def __init__(self, pair: Pair, config: DecodingConfig, prompt: str) -> None:
        self.cancelled = threading.Event()
        self._pair, self._config, self._clock = pair, config, Clock()
        self._transcript = Transcript(pair, prompt, config)
        self._counted: dict[str, Any] = {}

    async def result(self, engine: RunsTransformers, write: Callable[[Any], list[int]]) -> Result:
        """Runs `write`, which returns the output's ids, on the target engine's thread."""
        try:
            with self._clock.phase("rewrite"):
                ids = await engine.run_with_model(write)
        finally:
            self.cancelled.set()
        transcript = self._transcript
        transcript.record("target", transcript.append_target(ids))
        transcript.finish_reason = transcript.finish_reason or "length"
        result = transcript.result(self._clock, lossy=False)
        return replace(result, stats=replace(result.stats, **self._counted))

    def write(self, target: _CountedModel, **options: Any) -> list[int]:
        """Returns the output's ids, including the end of text. Runs on the engine's thread."""
        import torch

        from semanticspec.output.quiet import quiet

        vocabulary = self._pair.target.vocabulary
        prompt = torch.tensor([self._transcript.prompt_ids], device=target.model.device)
        device = prompt.device
        with quiet(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(self._config.seed)
            sequences = target.model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=self._transcript.limit,
                **_sampling_options(self._config.sampling),
                eos_token_id=sorted(vocabulary.end_ids),
                pad_token_id=vocabulary.end_id,
                **options,
            )
        ids: list[int] = sequences[0, prompt.shape[1] :].tolist()
        return ids

    def count(self, draft: _CountedModel, target: _CountedModel, num_tokens: int) -> None:
        """Derives the counts of assisted generation from the forward passes of both models.

        Each round is one pass of the target over the drafted tokens and the token before them (in the first round,
        over the prompt). It adds the drafted tokens that are kept and one token of the target.
        """
        rounds = target.num_passes
        drafted = target.num_tokens - len(self._transcript.prompt_ids) - (rounds - 1)
        self._counted = {"draft_tokens": max(0, num_tokens - rounds), "drafted_tokens": drafted}
        if target.model.device.type == "cpu":
            self._counted |= {"draft_s": draft.seconds, "verify_s": target.seconds, "rewrite_s": 0.0}
        else:
            self._counted |= {"rewrite_s": 0.0}


def _sampling_options(sampling: Sampling) -> dict[str, Any]:
    if sampling.temperature == 0:
        return {"do_sample": False}
    temperature = float(sampling.temperature)
    return {"do_sample": True, "temperature": temperature, "top_p": sampling.top_p, "top_k": 0}  # 0 is off


@dataclass(eq=False)
class _CountedModel:
    """A shallow copy of a model for `generate`: same weights, own generation settings, forward passes counted.

    Attributes:
        model: to call `generate` on.
        num_passes, num_tokens, seconds: forward passes so far, their input tokens, and the time spent in them.
    """

    model: Any
    cancelled: threading.Event
    num_passes: int = 0
    num_tokens: int = 0
    seconds: float = 0.0

    @classmethod
    def of(cls, model: Any, cancelled: threading.Event, width: int | None = None) -> _CountedModel:
        """Makes the copy; the model itself is not changed.

        Args:
            cancelled: once set, the next pass fails, which ends a cancelled request.
            width: vocabulary size to present, if the number of unused tokens differs from the other model's
                (R1-Distill 1.5B: 151936, 32B: 152064). Without this, transformers 5 concludes that the tokenizers
                differ, and fails with sampling (AttributeError: assistant_overlap_token_ids).
        """
        from transformers import GenerationConfig

        counted = cls(copy.copy(model), cancelled)
        counted.model.generation_config = GenerationConfig()
        counted.model.forward = counted._counting(model.forward, width)
        if width is not None:
            counted.model.config = copy.deepcopy(model.config)
            counted.model.config.get_text_config().vocab_size = width
        return counted

    def _counting(self, forward: Callable[..., Any], width: int | None) -> Callable[..., Any]:
        own_width = _width(self.model)

        @functools.wraps(forward)  # generate inspects the signature of forward
        def counted(*, input_ids: Any, **named: Any) -> Any:
            if self.cancelled.is_set():
                raise EngineError("the request was cancelled")
            if width is not None:  # the model has no embedding for ids beyond its own vocabulary size
                input_ids = input_ids.clamp(max=own_width - 1)
            start = time.perf_counter()
            output = forward(input_ids=input_ids, **named)
            self.seconds += time.perf_counter() - start
            self.num_passes += 1
            self.num_tokens += int(input_ids.shape[1])
            if width is not None and output.logits.shape[-1] != width:
                output.logits = _fitted(output.logits, width)
            return output

        return counted


def _fitted(logits: Any, width: int) -> Any:
    """Returns logits `[..., width]`: unused tokens are cut off, or added with probability 0."""
    import torch

    missing = max(0, width - logits.shape[-1])
    return torch.nn.functional.pad(logits[..., :width], (0, missing), value=float("-inf"))


def _width(model: Any) -> int:
    """Returns a model's vocabulary size, including unused tokens."""
    return int(model.config.get_text_config().vocab_size)


def _engine_of(method: str, role: str, model: Model) -> RunsTransformers:
    if not isinstance(model.engine, RunsTransformers):
        raise EngineError(
            f"{method} runs transformers' own generate, and the {role} {model.engine.info.model_id!r} does not run on "
            "transformers; load it with the transformers engine, or leave this method out"
        )
    return model.engine
