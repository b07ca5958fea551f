"""Settings from the command line and YAML files."""

from __future__ import annotations

from pathlib import Path

import pytest

from semanticspec.errors import ConfigError
from semanticspec.server.api.schemas import ChatRequest
from semanticspec.server.service import Service
from semanticspec.server.settings import ServerSettings, read_settings
from tests.support.serving import scripted_pair


@pytest.mark.parametrize(
    ("settings", "on"),
    [
        ({}, ("partial-acceptance", "token-speculation", "adaptive")),
        ({"optimizations": "none"}, ()),
        ({"preset": "paper"}, ()),
        (
            {"optimizations": "partial-acceptance,token-speculation"},
            ("partial-acceptance", "token-speculation"),
        ),
    ],
    ids=str,
)
def test_default_optimizations_are_on_unless_the_settings_name_others(settings, on):
    service = Service(scripted_pair(), ServerSettings(**settings))
    assert service.pair.resolve(service.config).optimizations == on


@pytest.mark.parametrize(
    ("body", "adapts"), [({}, True), ({"seed": 0}, False), ({"speculation": {"rule": "never"}}, False)]
)
def test_speculation_adapts_unless_a_seed_has_to_repeat_a_text(body, adapts):
    defaults = ServerSettings().decoding()
    request = ChatRequest.model_validate({"messages": [{"role": "user", "content": "a"}]} | body)
    assert request.decoding_config(defaults).adaptive is adapts
    plain = ServerSettings(optimizations="none").decoding()
    assert not request.decoding_config(plain).adaptive


def test_the_command_line_overrides_the_file(tmp_path):
    file = tmp_path / "serve.yaml"
    file.write_text("port: 1234\nmax-model-len: 99\nallowed-origins: [https://page.example]\n")
    settings = read_settings(file, {"port": 4321, "host": None, "allowed_origins": []})
    assert (settings.port, settings.max_model_len, settings.host) == (4321, 99, "127.0.0.1")
    assert settings.allowed_origins == ("https://page.example",)
    with pytest.raises(ConfigError, match="api_key") as refused:
        read_settings(None, {"api_key": "two words"})
    assert "two words" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("prot: 8000", "unknown key prot; expected one of pair, target"),
        ("port: many", "port is 'many'; expected a valid integer"),
        ("engine: magic", "engine: there is no engine 'magic'"),
        ("rule: best", "rule is 'best'; expected 'semantic', 'top-k'"),
        ("temperature: 11", "temperature is 11.0; expected 0 (greedy) to 10"),
        ("preset: paper\nrule: token", "a bonus token is not"),
        ("levers: none\noptimizations: none", "unknown key levers"),
        ("- port", "no settings found"),
        ("port: [", "cannot be read"),
    ],
)
def test_invalid_files_are_reported_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError) as refused:
        read_settings(file, {})
    assert message in str(refused.value)
    assert str(file) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_levers_is_the_old_name_of_optimizations(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("levers: partial-acceptance,overlap\n")
    with pytest.warns(FutureWarning, match=r"`levers` is now called `optimizations`.*0\.2"):
        settings = read_settings(file, {})
    assert settings.optimizations == "partial-acceptance,overlap"
    config = settings.decoding()
    assert (config.partial_acceptance, config.overlap, config.adaptive) == (True, True, False)
