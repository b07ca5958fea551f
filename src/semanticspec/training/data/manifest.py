"""The manifest of a collection: a JSON file with the models and settings that the collection was made with."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from semanticspec.engines.base import LAST_LAYER, EngineInfo, NormState, Pooling
from semanticspec.output.validation import STRICT
from semanticspec.records import Author

FORMAT: Literal[2] = 2


class CollectedModel(BaseModel):
    """A model as it was when the collection was made, and which of its hidden states were stored.

    The fields are those of `EngineInfo`, with the fingerprint of the vocabulary. Manifests without `layer`,
    `pooling` and `adapter` are from before there was a choice.
    """

    model_config = STRICT

    model_id: str
    revision: str
    hidden_size: int
    num_layers: int
    norm_state: NormState
    fingerprint: str
    layer: int = LAST_LAYER
    pooling: Pooling = "mean"
    adapter: str = ""

    @classmethod
    def of(cls, info: EngineInfo, fingerprint: str) -> CollectedModel:
        """Describes the model of an engine."""
        fields = {name: getattr(info, name) for name in cls.model_fields if name != "fingerprint"}
        return cls(**fields, fingerprint=fingerprint)


class Manifest(BaseModel):
    """Everything that the rows of a collection depend on, besides the problems.

    Attributes:
        config: the `CollectConfig`, and as `answers` what the answers were made by that contexts were taken from.
        probes: digests of the probes that took part in writing contexts, by role.
        versions: of the packages that took part.
    """

    model_config = STRICT

    format: Literal[2] = FORMAT
    target: CollectedModel
    draft: CollectedModel
    config: dict[str, Any]
    probes: dict[str, str] = {}
    versions: dict[str, str] = {}

    def model_of(self, role: Author) -> CollectedModel:
        """Returns the target or the draft."""
        return self.target if role == "target" else self.draft
