"""The settings file of `semanticspec probe run`: one TOML table a stage, checked before anything is done."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from semanticspec.demo import settings_path
from semanticspec.engines.base import LAST_LAYER, Pooling, StateSpec
from semanticspec.engines.registry import DEFAULT_ENGINE
from semanticspec.errors import ConfigError
from semanticspec.probes.features import named_features
from semanticspec.records import Author
from semanticspec.training.data.hub_problems import hub_name
from semanticspec.training.data.problems import DEMO_PROBLEMS
from semanticspec.training.data.settings import CollectConfig
from semanticspec.training.labels.judges import JudgeConfig
from semanticspec.training.train import TrainConfig

DEMO_SETTINGS = "demo"


@dataclass(frozen=True, slots=True)
class PairSettings:
    """Whose probes are made.

    Attributes:
        target, draft: hub name, folder or GGUF file; neither for the bundled pair.
        target_engine, draft_engine, dtype, device: the latter two of both; see `load_model`.
        target_layer, draft_layer, pooling: which states are collected, see `StateSpec`; `none` keeps every one.
        target_names, draft_names: further names for the cards, such as the hub's where a folder is given.
    """

    target: str | None = None
    draft: str | None = None
    target_engine: str = DEFAULT_ENGINE
    draft_engine: str = DEFAULT_ENGINE
    dtype: str = "auto"
    device: str = "auto"
    target_layer: int = LAST_LAYER
    draft_layer: int = LAST_LAYER
    pooling: Pooling = "mean"
    target_names: tuple[str, ...] = ()
    draft_names: tuple[str, ...] = ()

    @property
    def engines(self) -> dict[Author, str]:
        """Through which engine each model runs."""
        return {"target": self.target_engine, "draft": self.draft_engine}

    @property
    def states(self) -> dict[Author, StateSpec]:
        """Which states each engine is loaded with."""
        layers: dict[Author, int] = {"target": self.target_layer, "draft": self.draft_layer}
        return {role: StateSpec(layer, self.pooling) for role, layer in layers.items()}


@dataclass(frozen=True, slots=True)
class ProblemSettings:
    """What is asked.

    Attributes:
        source: JSONL file (a relative path counts from the settings file), data set on the hub
            (`org/name:split`), or `demo`. config: of a data set that has several.
        count: the first so many, None = all. traces: field that holds a given reasoning.
        concurrency: problems at work at once.
    """

    source: str = DEMO_PROBLEMS
    count: int | None = None
    traces: str | None = None
    config: str | None = None
    concurrency: int = 4


@dataclass(frozen=True, slots=True)
class EvaluateSettings:
    """What is trained again for the report, see `retraining`."""

    learning_curve: bool = True
    ablations: bool = False


@dataclass(frozen=True)
class RunSettings:
    """All stages. `train` has one entry for each role."""

    pair: PairSettings = field(default_factory=PairSettings)
    problems: ProblemSettings = field(default_factory=ProblemSettings)
    collect: CollectConfig = field(default_factory=CollectConfig)
    label: JudgeConfig = field(default_factory=JudgeConfig)
    train: dict[Author, TrainConfig] = field(default_factory=dict)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)

    def to_json(self) -> str:
        """Everything, defaults too, as `read_settings` reads it."""
        return json.dumps(asdict(self), indent=1) + "\n"


def read_settings(path: Path) -> RunSettings:
    """Reads a settings file (TOML, or the JSON a run has saved); `demo` is the bundled pair's.

    Raises:
        ConfigError: it cannot be read, has an unknown key, or a value of another kind or out of range.
    """
    if str(path) == DEMO_SETTINGS and not path.exists():
        path = settings_path()
    try:
        text = path.read_text()
        content = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"the settings file {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise ConfigError(f"{path} is no {kind}: {error}") from error
    return parse_settings(content, str(path), path.parent)


def parse_settings(content: Any, origin: str = "the settings", folder: Path = Path()) -> RunSettings:
    """Settings of a mapping of tables; see `read_settings`."""
    if not isinstance(content, Mapping):
        raise ConfigError(f"{origin}: expected tables, got {content!r}")
    tables = dict(content)
    trained = _train_configs(tables.pop("train", {}), f"{origin}: train")
    settings: RunSettings = _build(RunSettings, tables, origin, skip=("train",))
    source = settings.problems.source
    beside = (folder / Path(source).expanduser()).resolve()
    if source != DEMO_PROBLEMS and (beside.exists() or hub_name(source, None) is None):
        source = str(beside)
    return replace(settings, train=trained, problems=replace(settings.problems, source=source))


def _train_configs(table: Any, where: str) -> dict[Author, TrainConfig]:
    """`[train]` holds for both roles, `[train.target]` and `[train.draft]` change it for one."""
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: expected a table, got {table!r}")
    common = {name: value for name, value in table.items() if name not in get_args(Author)}
    configs: dict[Author, TrainConfig] = {}
    for role in cast("tuple[Author, ...]", get_args(Author)):
        own = table.get(role, {})
        if not isinstance(own, Mapping):
            raise ConfigError(f"{where}.{role}: expected a table, got {own!r}")
        values = {**common, **own}
        if values.get("features") in ("all", "portable"):
            values["features"] = list(named_features(values["features"], role))
        configs[role] = _build(TrainConfig, values, f"{where}.{role}")
    return configs


def _build(kind: Any, table: Any, where: str, skip: tuple[str, ...] = ()) -> Any:
    """A dataclass of a table, its fields converted; unknown and missing keys are errors."""
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: expected a table, got {table!r}")
    known = {entry.name: entry for entry in fields(kind) if entry.name not in skip}
    unknown = sorted(table.keys() - known.keys())
    if unknown:
        raise ConfigError(f"{where}: unknown {', '.join(unknown)}; expected any of {', '.join(known)}")
    for name, entry in known.items():
        if name not in table and entry.default is MISSING and entry.default_factory is MISSING:
            raise ConfigError(f"{where}: {name} is missing")
    hints = get_type_hints(kind)
    values = {name: _convert(hints[name], value, f"{where}: {name}") for name, value in table.items()}
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _convert(kind: Any, value: Any, where: str) -> Any:
    """A TOML value as a field's type."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if value is None and NoneType in arguments:
            return None
        (inner,) = (argument for argument in arguments if argument is not NoneType)
        return _convert(inner, value, where)
    if is_dataclass(kind):
        return _build(kind, value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_convert(arguments[0], part, where) for part in value)
    fits: dict[Any, Callable[[Any], bool]] = {
        bool: lambda found: isinstance(found, bool),
        int: lambda found: isinstance(found, int) and not isinstance(found, bool),
        float: lambda found: isinstance(found, int | float) and not isinstance(found, bool),
        str: lambda found: isinstance(found, str),
    }
    if origin is Literal and value in arguments:
        return value
    if kind in fits and fits[kind](value):
        return float(value) if kind is float else value
    expected = (
        f"one of {', '.join(map(str, arguments))}" if origin is Literal else getattr(kind, "__name__", kind)
    )
    raise ConfigError(f"{where} is {value!r}; expected {'a list' if origin is tuple else expected}")
