"""Settings of a collection: presets, and what is recorded of them."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from semanticspec.errors import ConfigError
from semanticspec.training.data.settings import CollectConfig, preset_settings


def test_presets_are_valid_settings() -> None:
    one = CollectConfig(**preset_settings("one-context"))
    assert (one.max_contexts, one.num_samples, one.default_concurrency) == (1, 6, 16)
    assert CollectConfig(**preset_settings("full")) == CollectConfig()
    assert CollectConfig().default_concurrency == 4
    with pytest.raises(ConfigError, match=r"the preset is 'fast'; expected one of full, one-context"):
        preset_settings("fast")


def test_settings_of_later_versions_are_recorded_only_if_they_are_used() -> None:
    """Otherwise collections of earlier versions could not be resumed."""
    assert "max_context_segments" not in CollectConfig().recorded()
    used = CollectConfig(max_context_segments=3)
    assert used.recorded() == asdict(used)
