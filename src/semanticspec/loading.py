"""Loads models and pairs by name."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from semanticspec import demo
from semanticspec.decoding.pair import Model, Pair
from semanticspec.engines.base import LoadRequest, StateSpec
from semanticspec.engines.registry import (
    DEFAULT_ENGINE,
    ENGINES,
    TRANSFORMERS,
    EngineChoice,
    load_engine,
    share_devices,
)
from semanticspec.errors import ConfigError, ModelError
from semanticspec.hub import hub_or_cache
from semanticspec.pairs import PreparedPair, find_pair
from semanticspec.probes.registry import BUNDLED as BUNDLED
from semanticspec.probes.registry import fitting, locate
from semanticspec.records import Author

if TYPE_CHECKING:
    from semanticspec.probes.probe import Probe


def load_pair(
    target: str | None = None,
    draft: str | None = None,
    *,
    target_probe: str | None = None,
    draft_probe: str | None = None,
    target_states: StateSpec | None = None,
    draft_states: StateSpec | None = None,
    target_engine: str = DEFAULT_ENGINE,
    draft_engine: str = DEFAULT_ENGINE,
    dtype: str = "auto",
    device: str = "auto",
    target_dtype: str | None = None,
    draft_dtype: str | None = None,
    target_device: str | None = None,
    draft_device: str | None = None,
    pair: str | None = None,
) -> Pair:
    """Loads a target and a draft; without arguments, the bundled demo pair with its probes.

    Args:
        target, draft: hub name, local folder or GGUF file. Give both or neither.
        target_probe, draft_probe: probes for the rule `semantic`: a folder, the name of packaged probes
            (`semanticspec probe list`), or owner/name[@revision] on the hub.
        target_states, draft_states: which hidden states the engines return; None = those that the probes need.
        target_engine, draft_engine: see `load_model`.
        dtype, device: of both models, see `load_model`.
        target_dtype, draft_dtype: of one model; None = `dtype`.
        target_device, draft_device: of one model; None = `device`.
        pair: a prepared pair, which gives the models, the probes and the draft's adapter where they are not given: the
            name of a packaged pair, a folder that `semanticspec prepare` wrote, or owner/name[@revision] on the hub.

    Raises:
        ConfigError: An engine, an option or the prepared pair is unknown, a model has no such layer, or only one model
            is given.
        ModelError: A model cannot be found or loaded.
        ProbeError: A probe cannot be loaded, was made for another model, or needs other states.
    """
    given = EngineChoice.parse(target_engine), EngineChoice.parse(draft_engine)
    prepared = find_pair(pair) if pair not in (None, BUNDLED, "demo") else None
    if prepared is not None:
        target, draft = target or prepared.target, draft or prepared.draft
        target_probe, draft_probe = target_probe or prepared.target_probe, draft_probe or prepared.draft_probe
    bundled = target is None and draft is None
    target, draft = model_names(target, draft)
    engines = given[0].for_model(target), given[1].for_model(draft)
    if prepared is not None:
        engines = engines[0], _with_adapter(engines[1], prepared)
    if bundled:
        target_probe = target_probe or _existing(demo.target_probe_path())
        draft_probe = draft_probe or _existing(demo.draft_probe_path())
    _check_model_name(target, engines[0])
    _check_model_name(draft, engines[1])
    # Probes first: they load quickly, so a misspelled name is reported before the models load. They also tell which
    # states the engines must return.
    probes = _load_probe(target_probe, "target"), _load_probe(draft_probe, "draft")
    states = target_states or _states_for(probes[0]), draft_states or _draft_states_for(*probes)
    target_request, draft_request = share_devices(
        engines[0].request(target, target_dtype or dtype, target_device or device, states[0]),
        engines[1].request(draft, draft_dtype or dtype, draft_device or device, states[1]),
    )
    with hub_or_cache((target, draft)):
        target_model, draft_model = _load(target_request), _load(draft_request)
    if not bundled:
        _warn_without_chat_template({target: target_model, draft: draft_model})
    _check_probe(probes[0], target_model, "target")
    _check_probe(probes[1], draft_model, "draft")
    _check_joint_probe(probes[0], draft_model)
    name = BUNDLED if bundled else f"{target} + {draft}"
    suggestions = _fitting_probes(target_model, draft_model)
    return Pair(target_model, draft_model, *probes, name, suggestions)


def model_names(target: str | None, draft: str | None) -> tuple[str, str]:
    """Returns the names of both models; the paths of the bundled models if neither is given.

    Raises:
        ConfigError: Only one of them is given.
    """
    if target is not None and draft is not None:
        return target, draft
    if target is None and draft is None:
        return str(demo.target_path()), str(demo.draft_path())
    given, missing = ("target", "draft") if draft is None else ("draft", "target")
    raise ConfigError(f"got a {given} but no {missing}; give both, or neither for the bundled pair")


def load_model(
    model: str,
    *,
    engine: str = DEFAULT_ENGINE,
    dtype: str = "auto",
    device: str = "auto",
    states: StateSpec = StateSpec(),  # noqa: B008
) -> Model:
    """Loads a model with its tokenizer.

    Args:
        model: hub name, local folder or GGUF file.
        engine: name, with options if any: `transformers`, `llama-cpp:threads=4,gpu_layers=20`; `auto` is llama-cpp for
            a GGUF file where it is installed, and else transformers.
        dtype: auto (as in the checkpoint), float32, bfloat16 or float16. With llama-cpp, the dtype of the KV cache:
            auto (float16), float16 or float32.
        device: auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:N or mps.
        states: which hidden states the engine returns.

    Raises:
        ConfigError: A setting is unknown, or the engine does not support it.
        ModelError: The model cannot be found or loaded.
    """
    choice = EngineChoice.parse(engine).for_model(model)
    _check_model_name(model, choice)
    with hub_or_cache((model,)):
        return _load(choice.request(model, dtype, device, states))


def _with_adapter(engine: EngineChoice, prepared: PreparedPair) -> EngineChoice:
    """Lets the draft's engine merge the pair's adapter. Other engines run a draft whose weights contain it."""
    if prepared.adapter is None or engine.name != TRANSFORMERS or "adapter" in engine.options:
        return engine
    return replace(engine, options={**engine.options, "adapter": str(prepared.adapter)})


def _load(request: LoadRequest) -> Model:
    from semanticspec.text.vocabulary import Vocabulary

    model = Model(load_engine(request), Vocabulary.load(request.model))
    if not model.engine.info.capabilities.prefix_cache:
        warnings.warn(
            f"{request.model} has a recurrent state, which cannot be truncated: every call prefills its whole context, "
            "so speculation rarely pays, and token-speculation is not among its default optimizations",
            stacklevel=3,
        )
    return model


def _check_model_name(model: str, engine: EngineChoice) -> None:
    """Raises ModelError for names that cannot work, before heavy imports."""
    path = Path(model)
    if not model.strip():
        raise ModelError("the model name is empty; expected a hub name such as Qwen/Qwen3-8B, or a path")
    looks_local = path.is_absolute() or model.startswith(("./", "../", "~")) or path.suffix == ".gguf"
    if looks_local and not path.expanduser().exists():
        raise ModelError(f"there is no folder or file {model!r}; check the path")
    suffix = ENGINES[engine.name].suffix
    if not model.endswith(suffix):
        raise ModelError(
            f"the engine {engine.name} needs a {suffix} file, got {model} (to export the bundled pair: "
            "python -m semanticspec.demo.gguf FOLDER)"
        )
    if path.is_dir() and not (path / "config.json").is_file():
        raise ModelError(f"the folder {model!r} is not a model: it has no config.json")


def _load_probe(name: str | None, role: Author) -> Probe | None:
    if name is None:
        return None
    folder = locate(name, role)
    from semanticspec.probes.probe import Probe

    return Probe.load(folder)


def _states_for(probe: Probe | None) -> StateSpec:
    return probe.card.states if probe else StateSpec()


def _draft_states_for(target_probe: Probe | None, draft_probe: Probe | None) -> StateSpec:
    """The draft's states: those of its own probe or, if that reads none, those of a joint probe."""
    joint = target_probe.card.draft_states if target_probe else None
    if joint is None or (draft_probe and draft_probe.card.use_state):
        return _states_for(draft_probe)
    return joint


def _warn_without_chat_template(models: dict[str, Model]) -> None:
    for name, model in models.items():
        if not model.vocabulary.has_chat_template:
            warnings.warn(
                f"{name} has no chat template, so it gets prompts as they are; base models may not answer questions",
                stacklevel=3,
            )


def _check_probe(probe: Probe | None, model: Model, role: Author) -> None:
    if probe is not None:
        vocabulary = model.vocabulary
        is_old_card = probe.card.fingerprint == vocabulary.padded_fingerprint
        fingerprint = vocabulary.padded_fingerprint if is_old_card else vocabulary.fingerprint
        for message in probe.check(model.engine.info, fingerprint, role):
            warnings.warn(message, stacklevel=3)


def _check_joint_probe(probe: Probe | None, draft: Model) -> None:
    if probe is not None:
        for message in probe.check_draft(draft.engine.info, draft.vocabulary.fingerprint):
            warnings.warn(message, stacklevel=3)


def _existing(path: Path) -> str | None:
    """Returns the path of a bundled probe; None while it is being retrained."""
    return str(path) if path.is_dir() else None


def _by_role(target: Model, draft: Model) -> tuple[tuple[Model, Author], tuple[Model, Author]]:
    return (target, "target"), (draft, "draft")


def _fitting_probes(target: Model, draft: Model) -> dict[str, str]:
    """Returns the packaged probes that fit both models, with the models that they were made for.

    An error suggests them; they are never used unasked.
    """
    made_for = [
        fitting(model.engine.info, model.vocabulary.fingerprint, role)
        for model, role in _by_role(target, draft)
    ]
    return {
        name: f"{made_for[0][name]} and {made_for[1][name]}" for name in made_for[0] if name in made_for[1]
    }
