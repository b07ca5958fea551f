"""Judges decide which segments of a context mean the same. Importing this package loads no model library.

To add a judge, write a class with the interface of `Judge` (or of `PairJudge`, wrapped in `Clustering`) and register
a factory under the name that `--judge` takes: `register_judge("my-judge", make_my_judge)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from semanticspec.errors import ConfigError
from semanticspec.training.labels.judges.base import Clustering, Judge, PairJudge, Question, cluster

if TYPE_CHECKING:
    from semanticspec.training.labels.judges.nli import EntailmentJudge

__all__ = [
    "Clustering",
    "Judge",
    "JudgeConfig",
    "JudgeFactory",
    "PairJudge",
    "Question",
    "cluster",
    "judge_names",
    "make_judge",
    "register_judge",
]


@dataclass(frozen=True, slots=True)
class JudgeConfig:
    """The name of a judge and its options.

    Attributes:
        name: one of `judge_names()`.
        model: `nli`, `numeric+nli`: hub name or folder (None: the paper's model); `llm`: the endpoint's model name.
        url: base URL of the endpoint; `llm` only.
        device: auto, cpu, cuda, cuda:N or mps; `nli` and `numeric+nli` only.
        batch_size: sentence pairs per forward pass, >= 1; `nli` and `numeric+nli` only.
        concurrency: concurrent requests, >= 1; `llm` only.
        max_tokens: length limit of an answer, >= 1; `llm` only.
    """

    name: str = "exact"
    model: str | None = None
    url: str | None = None
    device: str = "auto"
    batch_size: int = 32
    concurrency: int = 4
    max_tokens: int = 16

    def __post_init__(self) -> None:
        if self.name not in _FACTORIES:
            raise ConfigError(f"unknown judge {self.name!r}; expected one of {', '.join(_FACTORIES)}")
        if self.name == "llm" and not (self.model and self.url):
            raise ConfigError("the judge llm needs --judge-url and --judge-model")
        if self.url is not None and self.name != "llm":
            raise ConfigError(f"--judge-url is for the judge llm, got the judge {self.name}; leave it out")
        if self.model is not None and self.name not in _MODEL_JUDGES:
            raise ConfigError(f"the judge {self.name} uses no model; leave --judge-model out")


JudgeFactory = Callable[[JudgeConfig, Path | None], Judge]
"""Makes a judge from its options and the folder for cached verdicts (None: keep them in memory)."""

_FACTORIES: dict[str, JudgeFactory] = {}
_MODEL_JUDGES = ("nli", "numeric+nli", "llm")


def register_judge(name: str, factory: JudgeFactory) -> None:
    """Makes a judge available under a name; replaces an earlier judge of that name."""
    _FACTORIES[name] = factory


def judge_names() -> tuple[str, ...]:
    """Returns the names of all registered judges."""
    return tuple(_FACTORIES)


def make_judge(config: JudgeConfig, folder: Path | None = None) -> Judge:
    """Makes the judge that `config` describes.

    Args:
        folder: where a model's verdicts are cached; None keeps them in memory.

    Raises:
        ConfigError: the model cannot serve as a judge, or an option is out of range.
        ModelError: the model cannot be found.
        EngineError: a required package is missing.
    """
    return _FACTORIES[config.name](config, folder)


def _numeric(config: JudgeConfig, folder: Path | None) -> Judge:  # noqa: ARG001
    from semanticspec.training.labels.judges.numeric import NumericJudge

    return NumericJudge()


def _nli(config: JudgeConfig, folder: Path | None) -> Judge:
    return Clustering(_entailment(config, folder))


def _numeric_nli(config: JudgeConfig, folder: Path | None) -> Judge:
    from semanticspec.training.labels.judges.numeric_nli import NumericAndEntailmentJudge

    return Clustering(NumericAndEntailmentJudge(_entailment(config, folder)))


def _entailment(config: JudgeConfig, folder: Path | None) -> EntailmentJudge:
    from semanticspec.training.labels.judges.cache import VerdictCache
    from semanticspec.training.labels.judges.nli import DEFAULT_NLI_MODEL, EntailmentJudge

    cache = VerdictCache(folder / "verdicts-nli.jsonl" if folder else None)
    return EntailmentJudge(config.model or DEFAULT_NLI_MODEL, config.device, config.batch_size, cache)


def _llm(config: JudgeConfig, folder: Path | None) -> Judge:
    from semanticspec.training.labels.judges.cache import VerdictCache
    from semanticspec.training.labels.judges.llm import LanguageModelJudge

    cache = VerdictCache(folder / "verdicts-llm.jsonl" if folder else None)
    judge = LanguageModelJudge(
        config.url or "",
        config.model or "",
        cache,
        concurrency=config.concurrency,
        max_tokens=config.max_tokens,
    )
    return Clustering(judge)


register_judge("numeric", _numeric)
register_judge("nli", _nli)
register_judge("numeric+nli", _numeric_nli)
register_judge("llm", _llm)
