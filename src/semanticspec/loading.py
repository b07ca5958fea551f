"""Loads a pair by name: the one place that knows concrete engines."""

from __future__ import annotations

from pathlib import Path

from semanticspec import demo
from semanticspec.errors import ConfigError, ModelError
from semanticspec.pair import Model, Pair, SemanticProbe
from semanticspec.probes.finding import BUNDLED as BUNDLED
from semanticspec.probes.finding import fitting, locate
from semanticspec.records import Author


def load_pair(
    target: str | None = None,
    draft: str | None = None,
    *,
    target_probe: str | None = None,
    draft_probe: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
) -> Pair:
    """Loads a pair; without arguments the bundled one with its probes.

    Args:
        target, draft: hub name, local folder or GGUF file, both or neither.
        target_probe, draft_probe: needed by the `semantic` rule: folders, the name of a packaged pair of probes
            (`semanticspec probe list`), or owner/name[@revision] on the hub. The bundled pair brings its own.
        dtype, device: of both models, see `load_model`.

    Raises:
        ConfigError: only one of target and draft is given.
        ModelError: a model cannot be found or read.
        ProbeError: a probe cannot be read or was made for another model.
    """
    if (target is None) != (draft is None):
        given, missing = ("target", "draft") if draft is None else ("draft", "target")
        raise ConfigError(f"a {given} is given but no {missing}; name both, or neither for the bundled pair")
    if target is None or draft is None:
        target, draft, name = str(demo.target_path()), str(demo.draft_path()), BUNDLED
        target_probe = target_probe or _bundled_probe(demo.target_probe_path())
        draft_probe = draft_probe or _bundled_probe(demo.draft_probe_path())
    else:
        name = f"{target} + {draft}"
    # Misspelt probes are told before minutes are spent loading models.
    target_folder = locate(target_probe, "target") if target_probe else None
    draft_folder = locate(draft_probe, "draft") if draft_probe else None
    target_model = load_model(target, dtype=dtype, device=device)
    draft_model = load_model(draft, dtype=dtype, device=device)
    return Pair(
        target_model,
        draft_model,
        _load_probe(target_folder, target_model, "target"),
        _load_probe(draft_folder, draft_model, "draft"),
        name,
        _fitting_probes(target, target_model, draft, draft_model),
    )


def load_model(model: str, *, dtype: str = "auto", device: str = "auto") -> Model:
    """Loads one model with its tokenizer.

    Args:
        dtype: auto (as stored; float32 for the bundled pair), float32, bfloat16 or float16.
        device: auto (cuda, else mps, else cpu), cpu, cuda, cuda:N or mps.

    Raises:
        ModelError: the model cannot be found or read.
    """
    _check_model_name(model)
    from semanticspec.engines.transformers import TransformersEngine
    from semanticspec.vocabulary import Vocabulary

    engine = TransformersEngine.load(model, dtype=dtype, device=device)
    return Model(engine, Vocabulary.load(model))


def _check_model_name(model: str) -> None:
    """Refuses names that can be neither a hub name nor a local model, before anything heavy is imported."""
    path = Path(model)
    if not model.strip():
        raise ModelError("the model's name is empty; give a hub name such as Qwen/Qwen3-8B, or a folder")
    looks_local = path.is_absolute() or model.startswith(("./", "../", "~")) or path.suffix == ".gguf"
    if looks_local and not path.expanduser().exists():
        raise ModelError(f"there is no folder or file {model!r}; check the path")
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


def _load_probe(folder: Path | None, model: Model, role: Author) -> SemanticProbe | None:
    if folder is None:
        return None
    from semanticspec.probes.probe import Probe

    probe = Probe.load(folder)
    probe.check(model.engine.info, model.vocabulary.fingerprint, role)
    return probe
