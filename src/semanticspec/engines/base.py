"""What the decoding loop asks of a model, whatever runs it.

Engines are stateless to their caller: every call carries the full token ids of its context. Reusing what is
cached of it, batching concurrent calls and freeing memory are the engine's own business. Closing or cancelling
a call leaves the engine usable. Randomness is keyed by position: a token at absolute position p of sample i is
drawn with the uniform number `position_uniform(seed, p, i)`, so the same seed gives the same text however the
generation is cut into calls.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from semanticspec.errors import ConfigError
from semanticspec.records import Generation, Sampling, Score, Stop

NormState = Literal["post", "pre"]
Pooling = Literal["mean", "last", "none"]
LAST_LAYER = -1


@dataclass(frozen=True, slots=True)
class StateSpec:
    """Which states an engine's readings hold, and how those of the predicting positions become one.

    Attributes:
        layer: -1 = the last layer's, after the final norm; k in 1..num_layers = the output of the k-th decoder
            layer, before any final norm.
        pooling: `mean` over the predicting positions, the `last` of them, or `none`: all are kept.
    """

    layer: int = LAST_LAYER
    pooling: Pooling = "mean"

    def __post_init__(self) -> None:
        if self.pooling not in get_args(Pooling):
            raise ConfigError(
                f"pooling of an engine's states is {self.pooling!r}; expected one of {', '.join(get_args(Pooling))}"
            )

    @property
    def norm_state(self) -> NormState:
        """Whether the states are taken after or before the final norm."""
        return "post" if self.layer == LAST_LAYER else "pre"

    def check(self, num_layers: int) -> None:
        """Refuses a layer that a model of so many decoder layers has not.

        Raises:
            ConfigError: as said.
        """
        if self.layer != LAST_LAYER and not 1 <= self.layer <= num_layers:
            inner = f", or one of the decoder layers 1 to {num_layers}" if num_layers else ""
            raise ConfigError(
                f"layer is {self.layer}; expected -1 (the last layer's states after the final norm){inner}"
            )


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """A model for an engine, by its name; see `loading.load_model`. `options` are the engine's own."""

    engine: str
    model: str
    dtype: str
    device: str
    states: StateSpec
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do beyond the minimum; a rule or tokenizer that needs more is refused at start.

    Attributes:
        distributions: full distributions under sampling settings (needed by the `token` rule).
        pair_stops: generation can stop at a pair of ids (blank lines of two tokens).
        streaming: `stream` hands out tokens while they are written, not all at the end.
        entropies: scores hold the entropy of the raw distribution at every position.
        position_seeds: the same seed gives the same text however the generation is cut into calls.
    """

    distributions: bool = False
    pair_stops: bool = False
    streaming: bool = False
    entropies: bool = False
    position_seeds: bool = True


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What a model is, as far as the loop, the probes and their cards must know.

    Attributes:
        model_id: hub name or folder as the user gave it.
        revision: hub commit, or a digest of the weights' file list for a local folder; "" if unknown.
        norm_state: whether pooled states are taken after ("post") or before ("pre") the final norm.
        max_context_tokens: prompt and output together.
        layer, pooling: which states readings hold, see `StateSpec`.
    """

    model_id: str
    revision: str
    hidden_size: int
    num_layers: int
    vocabulary_size: int
    max_context_tokens: int
    norm_state: NormState = "post"
    capabilities: Capabilities = Capabilities()
    layer: int = LAST_LAYER
    pooling: Pooling = "mean"


@dataclass(frozen=True, slots=True)
class TokenChunk:
    """Tokens streamed since the last chunk."""

    token_ids: tuple[int, ...]


class Engine(Protocol):
    """A model that can write a continuation and read one. See the module's docstring for what all share."""

    @property
    def info(self) -> EngineInfo: ...

    async def generate(
        self,
        context_ids: Sequence[int],
        *,
        n: int = 1,
        max_tokens: int,
        stop: Stop,
        sampling: Sampling,
        seed: int = 0,
        distributions: bool = False,
        request_id: str | None = None,
    ) -> list[Generation]:
        """Samples n continuations of the context.

        Args:
            context_ids: the whole context, at least one token.
            max_tokens: at most this many new tokens each (>= 1).
            distributions: also return the distribution each token was drawn from.
            request_id: a hint for caching; never needed for a right answer.

        Raises:
            EngineError: the context and max_tokens do not fit the model, a capability is missing, or the
                engine failed.
        """
        ...

    def stream(
        self,
        context_ids: Sequence[int],
        *,
        max_tokens: int,
        stop: Stop,
        sampling: Sampling,
        seed: int = 0,
        request_id: str | None = None,
    ) -> AsyncIterator[TokenChunk | Generation]:
        """Like `generate` with n = 1, handing out tokens as they are written; the whole comes last.

        Close the iterator (`contextlib.aclosing`) to stop early.
        """
        ...

    async def score(
        self,
        context_ids: Sequence[int],
        continuations: Sequence[Sequence[int]],
        *,
        sampling: Sampling | None = None,
        seed: int = 0,
        distributions: bool = False,
        request_id: str | None = None,
    ) -> list[Score]:
        """Reads continuations of one context in one forward pass over what is not cached.

        Args:
            continuations: at least one, none of them empty.
            sampling: settings for `next_token_id` and `distributions`; None draws no token.

        Raises:
            EngineError: see `generate`.
        """
        ...

    async def aclose(self) -> None:
        """Frees the model; calls after this raise EngineError."""
        ...


@runtime_checkable
class Forgetting(Protocol):
    """An engine that can drop what it keeps of earlier calls, so that a measurement starts as a first call does."""

    async def forget(self) -> None:
        """Drops all that is cached of earlier calls; calls under way are not disturbed."""
        ...


def position_uniform(seed: int, position: int, sample: int = 0) -> float:
    """The uniform number in [0, 1) that draws the token at `position` of sample `sample`.

    A hash instead of a generator's state: nothing to carry from call to call, and independent of how a text is
    cut into calls.
    """
    digest = hashlib.blake2b(f"{seed}:{position}:{sample}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def derived_seed(seed: int, *parts: object) -> int:
    """A seed for one purpose ("draft", "target", "accept", ...), independent of those for others."""
    digest = hashlib.blake2b(":".join(map(str, (seed, *parts))).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
