"""Loads a pair by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from semanticspec import demo
from semanticspec.decoding.pair import Model, Pair
from semanticspec.engines.base import LoadRequest, StateSpec
from semanticspec.engines.registry import (
    DEFAULT_ENGINE,
    ENGINES,
    EngineChoice,
    load_engine,
    side_by_side,
)
from semanticspec.errors import ConfigError, ModelError
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
    target_device: str | None = None,
    draft_device: str | None = None,
) -> Pair:
    """Loads a pair; without arguments the bundled one with its probes.

    Args:
        target, draft: hub name, local folder or GGUF file, both or neither.
        target_probe, draft_probe: needed by the `semantic` rule: folders, the name of a packaged pair of probes
            (`semanticspec probe list`), or owner/name[@revision] on the hub. The bundled pair brings its own.
        target_states, draft_states: which states the engines' readings hold; None = those that the probes read.
        target_engine, draft_engine, dtype, device: see `load_model`; the latter two of both models.
        target_device, draft_device: of one model; None = device.

    Raises:
        ConfigError: an engine or its options are unknown, only one of target and draft is given, or a model has not
            the layer that is asked for.
        ModelError: a model cannot be found or read.
        ProbeError: a probe cannot be read, was made for another model, or reads other states than asked for.
    """
    engines = EngineChoice.parse(target_engine), EngineChoice.parse(draft_engine)
    bundled = target is None and draft is None
    target, draft = model_names(target, draft)
    name = BUNDLED if bundled else f"{target} + {draft}"
    if bundled:
        target_probe = target_probe or _bundled_probe(demo.target_probe_path())
        draft_probe = draft_probe or _bundled_probe(demo.draft_probe_path())
    _check_model_name(target, engines[0])
    _check_model_name(draft, engines[1])
    # Probes first: misspelt ones are told before minutes are spent loading models, and they say what to load.
    of_target, of_draft = _load_probe(target_probe, "target"), _load_probe(draft_probe, "draft")
    target_states = target_states or (of_target.card.states if of_target else StateSpec())
    draft_states = draft_states or (of_draft.card.states if of_draft else StateSpec())
    for_target, for_draft = side_by_side(
        engines[0].request(target, dtype, target_device or device, target_states),
        engines[1].request(draft, dtype, draft_device or device, draft_states),
    )
    target_model, draft_model = _load(for_target), _load(for_draft)
    return Pair(
        target_model,
        draft_model,
        _checked(of_target, target_model, "target"),
        _checked(of_draft, draft_model, "draft"),
        name,
        _fitting_probes(target, target_model, draft, draft_model),
    )


def model_names(target: str | None, draft: str | None) -> tuple[str, str]:
    """Returns the names of both models; if neither is given, the folders of the bundled models.

    Raises:
        ConfigError: only one of them is given.
    """
    if target is not None and draft is not None:
        return target, draft
    if target is None and draft is None:
        return str(demo.target_path()), str(demo.draft_path())
    given, missing = ("target", "draft") if draft is None else ("draft", "target")
    raise ConfigError(f"a {given} is given but no {missing}; name both, or neither for the bundled pair")


def load_model(
    model: str,
    *,
    engine: str = DEFAULT_ENGINE,
    dtype: str = "auto",
    device: str = "auto",
    states: StateSpec = StateSpec(),  # noqa: B008
) -> Model:
    """Loads one model with its tokenizer.

    Args:
        engine: its name, with options if need be: `transformers`, `llama-cpp:threads=4,gpu_layers=20`.
        dtype: auto (as stored; float32 for the bundled pair), float32, bfloat16 or float16. With llama-cpp that of
            kept keys and values, auto being float16: weights stay as the file holds them.
        device: auto (cuda, else mps, else cpu), cpu, cuda, cuda:N or mps.
        states: which states its readings hold.

    Raises:
        ConfigError: a setting is unknown, or the engine cannot do it.
        ModelError: the model cannot be found or read.
    """
    choice = EngineChoice.parse(engine)
    _check_model_name(model, choice)
    return _load(choice.request(model, dtype, device, states))


def _load(request: LoadRequest) -> Model:
    from semanticspec.text.vocabulary import Vocabulary

    return Model(load_engine(request), Vocabulary.load(request.model))


def _check_model_name(model: str, engine: EngineChoice) -> None:
    """Refuses names that can be neither a hub name nor a local model, before anything heavy is imported."""
    path = Path(model)
    if not model.strip():
        raise ModelError("the model's name is empty; give a hub name such as Qwen/Qwen3-8B, or a folder")
    looks_local = path.is_absolute() or model.startswith(("./", "../", "~")) or path.suffix == ".gguf"
    if looks_local and not path.expanduser().exists():
        raise ModelError(f"there is no folder or file {model!r}; check the path")
    suffix = ENGINES[engine.name].suffix
    if not model.endswith(suffix):
        raise ModelError(
            f"the engine {engine.name} runs {suffix} files, and {model} is none; give the path of one "
            "(of the bundled pair: python -m semanticspec.demo.gguf FOLDER makes them)"
        )
    if path.is_dir() and not (path / "config.json").is_file():
        raise ModelError(f"the folder {model!r} is no model: it has no config.json")


def _bundled_probe(path: Path) -> str | None:
    """The probe that comes with the package; none while the bundled probes are being rebuilt."""
    return str(path) if path.is_dir() else None


def _fitting_probes(target: str, target_model: Model, draft: str, draft_model: Model) -> tuple[str, ...]:
    """Names of the packaged pairs of probes that fit both models. Never used unasked, only named in an error."""
    for_target = fitting(target_model.engine.info, target_model.vocabulary.fingerprint, "target", target)
    for_draft = fitting(draft_model.engine.info, draft_model.vocabulary.fingerprint, "draft", draft)
    return tuple(name for name in for_target if name in for_draft)


def _load_probe(name: str | None, role: Author) -> Probe | None:
    if name is None:
        return None
    folder = locate(name, role)
    from semanticspec.probes.probe import Probe

    return Probe.load(folder)


def _checked(probe: Probe | None, model: Model, role: Author) -> Probe | None:
    if probe is not None:
        probe.check(model.engine.info, model.vocabulary.fingerprint, role)
    return probe
