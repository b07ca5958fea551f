"""Options that several commands share, each declared once; see `option_groups`."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from semanticspec.commands.option_groups import option_in
from semanticspec.config import (
    AUTO_OPTIMIZATIONS,
    OPTIMIZATIONS_HELP,
    PRESETS,
    RULES,
    DecodingConfig,
    preset,
    with_options,
)
from semanticspec.engines.registry import DEFAULT_ENGINE, ENGINE_HELP, LLAMA_CPP, EngineChoice
from semanticspec.errors import ConfigError
from semanticspec.install_hints import install_hint
from semanticspec.output.console import messages
from semanticspec.records import Author
from semanticspec.training.labels.judges import JudgeConfig

if TYPE_CHECKING:
    from semanticspec.decoding.pair import Pair

model_option = option_in("Models")
decoding_option = option_in("Decoding")
judge_option = option_in("Judge")
output_option = option_in("Output")

_DEFAULT = DecodingConfig()
_BUNDLED = "the bundled pair's"
DEVICES_HELP = "auto, cpu, cuda, cuda:N or mps."
PROBE_HELP = "folder, name of a packaged pair (see `semanticspec probe list`) or Hugging Face name."


@dataclass(frozen=True)
class PairOptions:
    """Options that describe a pair of models and how it is loaded."""

    pair: Annotated[
        str | None,
        model_option(
            "Prepared pair: its models, probes and adapter, where they are not given. Packaged pair (see `semanticspec "
            "probe list`), folder that `semanticspec prepare` wrote, or Hugging Face name.",
            default="none",
        ),
    ] = None
    target: Annotated[
        str | None, model_option("Target model: Hugging Face name, folder or GGUF file.", default=_BUNDLED)
    ] = None
    draft: Annotated[
        str | None, model_option("Draft model: Hugging Face name, folder or GGUF file.", default=_BUNDLED)
    ] = None
    target_probe: Annotated[str | None, model_option(f"Target probe: {PROBE_HELP}", default=_BUNDLED)] = None
    draft_probe: Annotated[str | None, model_option(f"Draft probe: {PROBE_HELP}", default=_BUNDLED)] = None
    engine: Annotated[str, model_option(f"Engine of both models: {ENGINE_HELP}")] = DEFAULT_ENGINE
    target_engine: Annotated[str | None, model_option("Engine of the target.", default="--engine")] = None
    draft_engine: Annotated[str | None, model_option("Engine of the draft.", default="--engine")] = None
    dtype: Annotated[
        str,
        model_option(
            "Data type of both models: auto, float32, bfloat16 or float16 (llama-cpp: of the KV cache)."
        ),
    ] = "auto"
    target_dtype: Annotated[str | None, model_option("Data type of the target.", default="--dtype")] = None
    draft_dtype: Annotated[str | None, model_option("Data type of the draft.", default="--dtype")] = None
    device: Annotated[str, model_option(f"Device of both models: {DEVICES_HELP}")] = "auto"
    target_device: Annotated[str | None, model_option("Device of the target.", default="--device")] = None
    draft_device: Annotated[str | None, model_option("Device of the draft.", default="--device")] = None

    @property
    def _named_engines(self) -> dict[Author, str]:
        return {"target": self.target_engine or self.engine, "draft": self.draft_engine or self.engine}

    @property
    def engines(self) -> dict[Author, str]:
        """The engine of each model, with `auto` replaced where the model is a GGUF file."""
        models = {"target": self.target, "draft": self.draft}
        return {
            role: EngineChoice.parse(engine).for_model(models[role] or "").name
            if engine == DEFAULT_ENGINE
            else engine
            for role, engine in self._named_engines.items()
        }

    @property
    def dtypes(self) -> dict[Author, str]:
        """The data type of each model."""
        return {"target": self.target_dtype or self.dtype, "draft": self.draft_dtype or self.dtype}

    @property
    def devices(self) -> dict[Author, str]:
        """The device of each model."""
        return {"target": self.target_device or self.device, "draft": self.draft_device or self.device}

    def load(self) -> Pair:
        """Loads the models and probes.

        Raises:
            SemanticSpecError: see `load_pair`.
        """
        from semanticspec.loading import load_pair

        self._say_chosen_engines()
        return load_pair(
            self.target,
            self.draft,
            target_probe=self.target_probe,
            draft_probe=self.draft_probe,
            target_engine=self.engines["target"],
            draft_engine=self.engines["draft"],
            target_dtype=self.dtypes["target"],
            draft_dtype=self.dtypes["draft"],
            target_device=self.devices["target"],
            draft_device=self.devices["draft"],
            pair=self.pair,
        )

    def _say_chosen_engines(self) -> None:
        """Says which engine runs a GGUF file if none was named, since two can."""
        models: dict[Author, str | None] = {"target": self.target, "draft": self.draft}
        engines = self.engines
        for role, model in models.items():
            if self._named_engines[role] != DEFAULT_ENGINE or model is None or not model.endswith(".gguf"):
                continue
            engine = engines[role]
            why = (
                f"llama.cpp is installed; --{role}-engine transformers dequantizes the file instead"
                if engine == LLAMA_CPP
                else f"llama.cpp, which would be faster, is not installed: {install_hint(LLAMA_CPP)}"
            )
            messages().print(f"{model} runs on the engine {engine} ({why})", style="dim")


@dataclass(frozen=True)
class SamplingOptions:
    """Options that describe how a request is decoded."""

    preset: Annotated[
        str,
        decoding_option(f"Configuration to start from: {' or '.join(PRESETS)} (the method as published)."),
    ] = "default"
    rule: Annotated[
        str | None,
        decoding_option(
            f"Acceptance rule for drafted segments: {', '.join(RULES)}.", default=_DEFAULT.rule.name
        ),
    ] = None
    strictness: Annotated[
        float | None,
        decoding_option(
            "Strictness of the rule semantic, above 0: higher values accept fewer segments; 1 is the paper's.",
            default="the preset's",
        ),
    ] = None
    optimizations: Annotated[
        str, decoding_option(f"Optimizations beyond the paper. {OPTIMIZATIONS_HELP}")
    ] = AUTO_OPTIMIZATIONS
    levers: Annotated[str | None, typer.Option(hidden=True)] = None
    max_new_tokens: Annotated[
        int | None,
        decoding_option("Maximum output length in target tokens.", default=str(_DEFAULT.max_new_tokens)),
    ] = None
    temperature: Annotated[
        float | None,
        decoding_option(
            "Sampling temperature of both models; 0 is greedy.", default=str(_DEFAULT.sampling.temperature)
        ),
    ] = None
    top_p: Annotated[
        float | None,
        decoding_option(
            "Nucleus sampling: the probability mass that tokens are sampled from.",
            default=str(_DEFAULT.sampling.top_p),
        ),
    ] = None
    seed: Annotated[
        int, decoding_option("Random seed; repeats a text in float32, and mostly in other dtypes.", min=0)
    ] = 0

    def config(self) -> DecodingConfig:
        """Returns the decoding configuration. Commands call it before they load a model, to report wrong options.

        Raises:
            ConfigError: an option is unknown or out of range.
        """
        optimizations = renamed_levers(self.optimizations, self.levers)
        return with_options(
            preset(self.preset),
            rule=self.rule,
            strictness=self.strictness,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            optimizations=None if optimizations == AUTO_OPTIMIZATIONS else optimizations,  # the preset's
        )


JudgeName = Annotated[
    str,
    judge_option(
        "Judge that decides which segments mean the same: exact (bundled pair only), numeric, nli, numeric+nli "
        "or llm."
    ),
]


@dataclass(frozen=True)
class JudgeOptions:
    """Options of the judges that use a model."""

    judge_model: Annotated[
        str | None,
        judge_option(
            "nli, numeric+nli: Hugging Face name or folder of a classifier; llm: the endpoint's model name.",
            default="nli: the paper's",
        ),
    ] = None
    judge_url: Annotated[
        str | None,
        judge_option("llm: base URL of an OpenAI-compatible endpoint, for example http://localhost:8000/v1."),
    ] = None
    judge_max_tokens: Annotated[
        int, judge_option("llm: maximum length of an answer; reasoning models need more.", min=1)
    ] = 16
    batch_size: Annotated[int, judge_option("nli, numeric+nli: sentence pairs per forward pass.", min=1)] = 32
    concurrency: Annotated[int, judge_option("llm: concurrent requests.", min=1)] = 4
    device: Annotated[str, judge_option(f"nli, numeric+nli: {DEVICES_HELP}")] = "auto"

    def config(self, judge: str) -> JudgeConfig:
        """Returns the configuration of a judge.

        Raises:
            ConfigError: there is no such judge, or an option does not belong to it.
        """
        return JudgeConfig(
            judge,
            model=self.judge_model,
            url=self.judge_url,
            device=self.device,
            batch_size=self.batch_size,
            concurrency=self.concurrency,
            max_tokens=self.judge_max_tokens,
        )


def renamed_levers(optimizations: str, levers: str | None) -> str:
    """Returns the value of `--optimizations`, or with a warning that of its old name `--levers` if that is given."""
    if levers is None:
        return optimizations
    warnings.warn(
        "--levers is now called --optimizations; the old name will be removed in 0.2",
        FutureWarning,
        stacklevel=2,
    )
    return levers


def comma_separated(text: str, option: str) -> tuple[str, ...]:
    """Returns the values of a comma-separated option.

    Raises:
        ConfigError: there is no value.
    """
    values = tuple(value.strip() for value in text.split(",") if value.strip())
    if not values:
        raise ConfigError(f"{option} is empty; expected at least one value, or several separated by commas")
    return values
