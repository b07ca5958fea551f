"""The settings file of `semanticspec probe run`: one TOML table per stage, validated before anything runs."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import Field, with_config

from semanticspec.engines.base import LAST_LAYER, Pooling, StateSpec
from semanticspec.engines.registry import TRANSFORMERS
from semanticspec.errors import ConfigError
from semanticspec.output.validation import STRICT, parse_json
from semanticspec.probes.features import named_features
from semanticspec.problems.hub import hub_name
from semanticspec.problems.sources import DEMO_PROBLEMS
from semanticspec.records import Author
from semanticspec.training.align.settings import AlignConfig, AnswerSettings
from semanticspec.training.data.settings import CollectConfig
from semanticspec.training.labels.judges import JudgeConfig
from semanticspec.training.train import TrainConfig


@dataclass(frozen=True, slots=True)
class PairSettings:
    """The models whose probes are made.

    Attributes:
        target, draft: hub name, folder or GGUF file; neither for the bundled pair.
        target_engine, draft_engine: see `load_model`; by default transformers, which returns the states of any layer.
        dtype, device: of both models, see `load_model`.
        target_dtype, draft_dtype: of one model; None = `dtype`.
        target_layer, draft_layer, pooling: which states are collected, see `StateSpec`; `none` keeps all of them.
        target_names, draft_names: further names for the cards, such as the hub name of a model in a folder.
    """

    target: str | None = None
    draft: str | None = None
    target_engine: str = TRANSFORMERS
    draft_engine: str = TRANSFORMERS
    dtype: str = "auto"
    target_dtype: str | None = None
    draft_dtype: str | None = None
    device: str = "auto"
    target_layer: int = LAST_LAYER
    draft_layer: int = LAST_LAYER
    pooling: Pooling = "mean"
    target_names: tuple[str, ...] = ()
    draft_names: tuple[str, ...] = ()

    @property
    def engines(self) -> dict[Author, str]:
        """The engine of each model."""
        return {"target": self.target_engine, "draft": self.draft_engine}

    @property
    def dtypes(self) -> dict[Author, str]:
        """The data type of each model."""
        return {"target": self.target_dtype or self.dtype, "draft": self.draft_dtype or self.dtype}

    @property
    def states(self) -> dict[Author, StateSpec]:
        """The states that each engine is loaded with."""
        layers: dict[Author, int] = {"target": self.target_layer, "draft": self.draft_layer}
        return {role: StateSpec(layer, self.pooling) for role, layer in layers.items()}


@dataclass(frozen=True, slots=True)
class ProblemSettings:
    """The problems that contexts are collected on.

    Attributes:
        source: JSONL file (a relative path is relative to the settings file), data set on the hub
            (`org/name:split`), or `demo`.
        config: configuration of a data set that has several.
        template: what each problem is put into, see `read_problems`.
        count: use the first `count` problems, None = all.
        traces: field with a given reasoning, used instead of the target's own.
        concurrency: problems collected at the same time; None = as many as `CollectConfig.default_concurrency`.
    """

    source: str = DEMO_PROBLEMS
    count: Annotated[int, Field(ge=1)] | None = None
    traces: str | None = None
    config: str | None = None
    template: str = "none"
    concurrency: Annotated[int, Field(ge=1)] | None = None


@dataclass(frozen=True, slots=True)
class AlignSettings:
    """How the draft is aligned with the target before anything is collected, see `align`.

    Attributes:
        target, target_engine: what answers the problems; None = the pair's. A GGUF file of the same model on llama.cpp
            is faster on a CPU.
        draft: whose weights are trained, if the pair's draft is a GGUF file; that file then gets the adapter.
        concurrency: answers in progress at the same time.
        answers: how the target answers.
        training: how the draft is trained.
    """

    target: str | None = None
    target_engine: str | None = None
    draft: str | None = None
    concurrency: Annotated[int, Field(ge=1)] = 16
    answers: AnswerSettings = field(default_factory=AnswerSettings)
    training: AlignConfig = field(default_factory=AlignConfig)


@dataclass(frozen=True, slots=True)
class EvaluateSettings:
    """Which probes are retrained for the report, see `ablations`."""

    learning_curve: bool = True
    ablations: bool = False


@with_config(STRICT)
@dataclass(frozen=True)
class RunSettings:
    """Settings of all stages; `train` has one entry per role. Without `align`, the draft is used as it is."""

    pair: PairSettings = field(default_factory=PairSettings)
    problems: ProblemSettings = field(default_factory=ProblemSettings)
    collect: CollectConfig = field(default_factory=CollectConfig)
    label: JudgeConfig = field(default_factory=JudgeConfig)
    train: dict[Author, TrainConfig] = field(default_factory=dict)
    align: AlignSettings | None = None
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)

    def __post_init__(self) -> None:
        if self.align is None:
            return
        draft, other = self.pair.draft, self.align.draft
        if draft is not None and draft.endswith(".gguf") and other is None:
            raise ConfigError(
                f"the draft {draft} is a GGUF file, which cannot be trained; set draft in [align] to the folder or hub "
                "name of the same model"
            )
        if other is not None and not (draft or "").endswith(".gguf"):
            raise ConfigError(
                f"draft in [align] is {other!r}, but the pair's draft is no GGUF file; leave it out: the pair's draft "
                "is trained"
            )

    def to_json(self) -> str:
        """All settings, defaults included, as `read_settings` reads them."""
        return json.dumps(asdict(self), indent=1) + "\n"


def read_settings(path: Path) -> RunSettings:
    """Reads a settings file: TOML, or the JSON that a run has saved.

    Raises:
        ConfigError: the file cannot be read, has an unknown key, or a value of a wrong type or out of range.
    """
    kind = "JSON" if path.suffix == ".json" else "TOML"
    try:
        text = path.read_text()
        content = json.loads(text) if kind == "JSON" else tomllib.loads(text)
    except OSError as error:
        raise ConfigError(
            f"the settings file {path} cannot be read: {error.strerror}; check the path"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{path} is not valid {kind}: {error}") from error
    return parse_settings(content, str(path), path.parent)


def parse_settings(content: Any, origin: str = "the settings", folder: Path = Path()) -> RunSettings:
    """Validates settings; see `read_settings`.

    Args:
        origin: file name for error messages.
        folder: what a relative path to the problems is relative to.
    """
    if isinstance(content, Mapping):
        content = {**content, "train": _by_role(content.get("train", {}))}
    settings = parse_json(RunSettings, json.dumps(content, default=str), origin)
    if "draft" in settings.train and settings.train["draft"].joint:
        raise ConfigError(
            f"{origin}: only the target's probe can be joint; put `joint = true` under [train.target]"
        )
    source = settings.problems.source
    beside = (folder / Path(source).expanduser()).resolve()
    if source != DEMO_PROBLEMS and (beside.exists() or hub_name(source, None) is None):
        source = str(beside)
    return replace(settings, problems=replace(settings.problems, source=source))


def _by_role(table: Any) -> Any:
    """Merges `[train]`, which applies to both roles, into `[train.target]` and `[train.draft]`.

    What is not a table stays as it is, for validation to report.
    """
    if not isinstance(table, Mapping):
        return table
    common = {name: value for name, value in table.items() if name not in get_args(Author)}
    roles: dict[str, Any] = {}
    for role in get_args(Author):
        own = table.get(role, {})
        roles[role] = {**common, **own} if isinstance(own, Mapping) else own
        if isinstance(own, Mapping) and roles[role].get("features") in ("all", "portable"):
            joint = roles[role].get("joint") is True
            roles[role]["features"] = named_features(roles[role]["features"], role, joint=joint)
    return roles
