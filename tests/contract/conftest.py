"""The engines under test."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from subjects import CONFIGS, Subject, scripted_subject, transformers_subject
from transformers import AutoModelForCausalLM


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny random models, saved as one would download them."""
    folders = {}
    for name, config in CONFIGS.items():
        torch.manual_seed(7)
        folders[name] = tmp_path_factory.mktemp("models") / name
        AutoModelForCausalLM.from_config(config()).save_pretrained(folders[name])
    return folders


@pytest.fixture(scope="session", params=[*CONFIGS, "scripted"])
def subject(request: pytest.FixtureRequest, model_folders: dict[str, Path]) -> Subject:
    """Every engine; shared by all tests, so that each runs on the caches the others left."""
    name: str = request.param
    return scripted_subject() if name == "scripted" else transformers_subject(name, model_folders[name])


@pytest.fixture(scope="session")
def llama(model_folders: dict[str, Path]) -> Subject:
    """One plain transformers engine with its oracle."""
    return transformers_subject("llama", model_folders["llama"])
