"""What the results of a run depend on: models, probes, method settings, machine and library versions."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from semanticspec.benchmark.methods import Method
from semanticspec.decoding.pair import Model, Pair

_PACKAGES = ("semanticspec", "torch", "transformers", "llama-cpp-python")


def describe_method(method: Method) -> dict[str, Any]:
    """Returns whether a method is lossy, and its complete settings."""
    described: dict[str, Any] = {"lossy": method.lossy}
    for name in ("config", "settings"):
        value = getattr(method, name, None)
        if value is not None:
            known = is_dataclass(value) and not isinstance(value, type)
            described[name] = asdict(value) if known else value
    return described


def describe_pair(pair: Pair) -> dict[str, Any]:
    """Returns models by name and revision, and probes by the digest of their weights."""
    return {
        "target": _describe_model(pair.target),
        "draft": _describe_model(pair.draft),
        "target_probe": _describe_probe(pair.target_probe),
        "draft_probe": _describe_probe(pair.draft_probe),
    }


def describe_machine(device: str) -> dict[str, Any]:
    """Returns the hardware that measured times depend on."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine = {"cpu": _cpu_name(), "cores": cores, "threads": torch.get_num_threads()}
    if device.startswith("cuda") or (device == "auto" and torch.cuda.is_available()):
        machine["gpu"] = torch.cuda.get_device_name()
    return machine


def describe_versions() -> dict[str, str]:
    """Returns the versions of the installed packages that times and texts depend on."""
    found = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _describe_model(model: Model) -> dict[str, str]:
    return {"model": model.engine.info.model_id, "revision": model.engine.info.revision}


def _describe_probe(probe: Any) -> str | None:
    if probe is None:
        return None
    return str(getattr(getattr(probe, "card", None), "weights_digest", type(probe).__name__))


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
