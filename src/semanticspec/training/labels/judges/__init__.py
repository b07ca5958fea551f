"""Judges: what decides which segments of a context mean the same. One file a judge; importing this loads none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from semanticspec.errors import ConfigError
from semanticspec.training.labels.judges.base import Clustering, Judge, PairJudge, Question, cluster

__all__ = ["JUDGES", "Clustering", "Judge", "JudgeConfig", "PairJudge", "Question", "cluster", "make_judge"]

JUDGES = ("exact", "numeric", "nli", "numeric+nli", "llm")


@dataclass(frozen=True, slots=True)
class JudgeConfig:
    """Which judge, and what it needs.

    Attributes:
        name: one of `JUDGES`.
        model: a hub name or folder for `nli` (None: the paper's), the endpoint's name for `llm`; others have none.
        url: of the endpoint, for `llm` alone.
        device: for `nli`: auto, cpu, cuda, cuda:N or mps.
        batch_size: pairs in a pass of `nli`, >= 1.
        concurrency: requests of `llm` at once, >= 1.
        max_tokens: of an answer of `llm`, >= 1.
    """

    name: str = "exact"
    model: str | None = None
    url: str | None = None
    device: str = "auto"
    batch_size: int = 32
    concurrency: int = 4
    max_tokens: int = 16

    def __post_init__(self) -> None:
        if self.name not in JUDGES:
            raise ConfigError(f"unknown judge {self.name!r}; expected one of {', '.join(JUDGES)}")
        if self.name == "llm" and not (self.model and self.url):
            raise ConfigError("the judge llm needs --judge-url and --judge-model")
        if self.url is not None and self.name != "llm":
            raise ConfigError(f"--judge-url is for the judge llm, not for {self.name}")
        if self.model is not None and self.name in ("exact", "numeric"):
            raise ConfigError(f"the judge {self.name} has no model; leave --judge-model out")


def make_judge(config: JudgeConfig, folder: Path | None = None) -> Judge:
    """The judge that a configuration describes.

    Args:
        folder: where models' verdicts are kept; None forgets them.

    Raises:
        ConfigError: its model is no judge, or a setting cannot work. ModelError: there is no such model.
    """
    if config.name == "exact":
        from semanticspec.training.labels.judges.exact import ExactJudge

        return ExactJudge()
    if config.name == "numeric":
        from semanticspec.training.labels.judges.numeric import NumericJudge

        return NumericJudge()
    return Clustering(_pair_judge(config, folder))


def _pair_judge(config: JudgeConfig, folder: Path | None) -> PairJudge:
    from semanticspec.training.labels.judges.cache import VerdictCache

    kind = "llm" if config.name == "llm" else "nli"
    cache = VerdictCache(folder / f"verdicts-{kind}.jsonl" if folder else None)
    if kind == "llm":
        from semanticspec.training.labels.judges.llm import Endpoint, LanguageModelJudge

        assert config.url
        assert config.model
        endpoint = Endpoint(
            config.url, config.model, concurrency=config.concurrency, max_tokens=config.max_tokens
        )
        return LanguageModelJudge(endpoint, cache)
    from semanticspec.training.labels.judges.nli import DEFAULT_NLI_MODEL, EntailmentJudge

    judge = EntailmentJudge(config.model or DEFAULT_NLI_MODEL, config.device, config.batch_size, cache)
    if config.name == "nli":
        return judge
    from semanticspec.training.labels.judges.numeric_nli import NumericAndEntailmentJudge

    return NumericAndEntailmentJudge(judge)
