"""The interface of inference engines.

Engines are stateless to their caller: every call carries the full token ids of its context. Prefix caching, batching of
concurrent calls and memory management are internal. Closing or cancelling a call leaves the engine usable.

Sampling is keyed by position: the token at absolute position p of sample i is drawn with the uniform number
`position_uniform(seed, p, i)`. The same seed therefore gives the same text however it is divided into calls.
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
    """Selects the hidden states that an engine returns.

    Attributes:
        layer: -1 for the last layer after the final norm; k in 1..num_layers for the output of the k-th decoder layer,
            before any final norm.
        pooling: how the predicting positions are pooled: their `mean`, the `last` one, or `none` (all are returned).

    Raises:
        ConfigError: The pooling is unknown.
    """

    layer: int = LAST_LAYER
    pooling: Pooling = "mean"

    def __post_init__(self) -> None:
        if self.pooling not in get_args(Pooling):
            raise ConfigError(f"pooling is {self.pooling!r}; expected one of {', '.join(get_args(Pooling))}")

    @property
    def norm_state(self) -> NormState:
        """Whether the states are taken after ("post") or before ("pre") the final norm."""
        return "post" if self.layer == LAST_LAYER else "pre"

    def check(self, num_layers: int) -> None:
        """Checks that a model with `num_layers` decoder layers has the selected layer.

        Raises:
            ConfigError: It does not.
        """
        if self.layer != LAST_LAYER and not 1 <= self.layer <= num_layers:
            inner = f", or one of the decoder layers 1 to {num_layers}" if num_layers else ""
            raise ConfigError(
                f"layer is {self.layer}; expected -1 (the last layer's states after the final norm){inner}"
            )


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """What an engine needs to load a model, see `loading.load_model`. `options` are the engine's own."""

    engine: str
    model: str
    dtype: str
    device: str
    states: StateSpec
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Optional features of an engine. Requests that need a missing one are refused at start.

    Attributes:
        distributions: returns full distributions under the sampling settings.
        pair_stops: stops at pairs of ids (for tokenizers that encode a blank line as two tokens).
        entropies: scores contain the entropy of the raw distribution at every position.
        margins: scores contain the margin between the two most probable tokens at every position.
        position_seeds: sampling is keyed by position, see the module docstring.
        prefix_cache: a call prefills only what earlier calls have not; otherwise its whole context.
    """

    distributions: bool = False
    pair_stops: bool = False
    entropies: bool = False
    margins: bool = False
    position_seeds: bool = True
    prefix_cache: bool = True


ALL_CAPABILITIES = Capabilities(distributions=True, pair_stops=True, entropies=True, margins=True)


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Describes a loaded model.

    Attributes:
        model_id: hub name or path, as given by the user.
        revision: commit on the hub, or a digest of the local files; "" if unknown.
        max_context_tokens: limit for prompt and output together.
        norm_state, layer, pooling: which hidden states are returned, see `StateSpec`.
        dtype, device: of the weights, for people; "" if unknown.
        adapter: digest of the LoRA adapter that the weights contain; "" if they contain none.
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
    dtype: str = ""
    device: str = ""
    adapter: str = ""


@dataclass(frozen=True, slots=True)
class TokenChunk:
    """Tokens generated since the last chunk of a stream."""

    token_ids: tuple[int, ...]


class Engine(Protocol):
    """A causal language model that generates and scores continuations. See the module docstring."""

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
        """Samples n continuations of a context.

        Args:
            context_ids: the whole context, at least one token.
            n: number of continuations.
            max_tokens: maximum number of new tokens per continuation, at least 1.
            stop: when to end a continuation early.
            sampling: temperature and top-p.
            seed: see `position_uniform`.
            distributions: also return the distribution that each token was drawn from.
            request_id: a hint for the prefix cache; it never changes the result.

        Raises:
            EngineError: Context and `max_tokens` exceed the model's limit, the engine lacks a capability, or it failed.
            ConfigError: The sampling settings are out of range.
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
        """Samples one continuation. Yields token chunks as they are generated, and the whole `Generation` last.

        To stop early, close the iterator (`contextlib.aclosing`). Arguments and errors: see `generate`.
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
        signals: bool = False,
        request_id: str | None = None,
    ) -> list[Score]:
        """Scores given continuations of a context. Prefills only what the prefix cache does not hold.

        Args:
            context_ids: the whole context, at least one token.
            continuations: at least one; none may be empty.
            sampling: settings for `Score.next_token_id` and `Score.distributions`; None = neither is computed.
            signals: also compute `Score.ranks`, `Score.argmax_ids`, `Score.entropies` and `Score.margins`, which
                cost further passes over the vocabulary.
            seed, distributions, request_id: see `generate`.

        Raises:
            EngineError, ConfigError: See `generate`.
        """
        ...

    async def aclose(self) -> None:
        """Frees the model. Later calls raise EngineError."""
        ...


@runtime_checkable
class ResettableCache(Protocol):
    """An engine whose prefix cache can be emptied, so that measurements start cold."""

    async def reset_cache(self) -> None:
        """Empties the prefix cache. Running calls are not affected."""
        ...


def position_uniform(seed: int, position: int, sample: int = 0) -> float:
    """Returns the uniform number in [0, 1) that draws the token at `position` of sample number `sample`.

    A hash needs no generator state between calls, and does not depend on how a text is divided into calls.
    """
    digest = hashlib.blake2b(f"{seed}:{position}:{sample}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def derived_seed(seed: int, *parts: object) -> int:
    """Derives an independent seed for one purpose, such as "draft", "target" or "accept"."""
    digest = hashlib.blake2b(":".join(map(str, (seed, *parts))).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
