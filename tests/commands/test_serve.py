"""`semanticspec serve`: which settings reach the server. The server itself: tests/server."""

from __future__ import annotations

import socket
from dataclasses import fields
from typing import Any

import pytest

from semanticspec.commands.options import PairOptions, SamplingOptions
from semanticspec.commands.serve import ServerOptions
from semanticspec.server.settings import ServerSettings


@pytest.fixture
def served(monkeypatch) -> list[Any]:
    """Settings of servers that were started, and the options of load_pair; nothing is loaded or served."""
    found: list[Any] = []
    monkeypatch.setattr("semanticspec.loading.load_pair", lambda *args, **kwargs: (args, kwargs))
    monkeypatch.setattr(
        "semanticspec.server.run.run_server", lambda pair, settings, _: found.extend([pair, settings])
    )
    return found


def test_the_defaults_in_the_help_are_those_of_the_server():
    for options in (ServerOptions(), PairOptions(), SamplingOptions()):
        for field in fields(options):
            if field.name not in ("seed", "levers"):
                expected = ServerSettings.model_fields[field.name].get_default()
                assert getattr(options, field.name) == (expected or None if expected == () else expected)


def test_every_setting_is_an_option():
    options = {
        field.name for group in (ServerOptions, PairOptions, SamplingOptions) for field in fields(group)
    }
    assert set(ServerSettings.model_fields) == options - {"seed", "levers"}


def test_the_command_line_overrides_the_file_and_the_file_the_defaults(semanticspec, served, tmp_path):
    file = tmp_path / "serve.yaml"
    file.write_text(
        "port: 1234\nmax-model-len: 99\nrule: top-k\ntarget-engine: llama-cpp\ntarget-dtype: float32\n"
    )
    done = semanticspec(
        "serve", "--config", str(file), "--rule", "semantic", "--port", "0", "--device", "cpu"
    )
    assert done.returncode == 0, done.stderr
    (_, loaded), settings = served
    assert (settings.port, settings.max_model_len, settings.rule) == (0, 99, "semantic")
    assert (loaded["target_engine"], loaded["draft_engine"]) == ("llama-cpp", "transformers")
    assert (loaded["target_dtype"], loaded["draft_dtype"], loaded["target_device"]) == (
        "float32",
        "auto",
        "cpu",
    )


def test_the_key_can_be_in_the_environment(semanticspec, served, monkeypatch):
    monkeypatch.setenv("SEMANTICSPEC_API_KEY", "secret")
    assert semanticspec("serve", "--port", "0").returncode == 0
    assert served[1].api_key == "secret"


def test_origins_can_be_repeated(semanticspec, served):
    origins = ["https://one.example", "https://two.example"]
    done = semanticspec(
        "serve", "--port", "0", *(part for origin in origins for part in ("--allowed-origins", origin))
    )
    assert done.returncode == 0, done.stderr
    assert served[1].allowed_origins == tuple(origins)


def test_levers_is_the_old_name_of_optimizations(semanticspec, served):
    done = semanticspec("serve", "--port", "0", "--levers", "overlap")
    assert (
        done.stderr
        == "warning: --levers is now called --optimizations; the old name will be removed in 0.2\n"
    )
    assert served[1].optimizations == "overlap"


def test_bad_options_are_one_line_and_exit_code_2(semanticspec, served):
    done = semanticspec("serve", "--port", "99999")
    assert done.returncode == 2
    assert "port is 99999; expected " in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert served == []


def test_a_taken_port_is_told_before_the_models_are_loaded(semanticspec, monkeypatch):
    monkeypatch.setattr("semanticspec.loading.load_pair", lambda *_, **__: pytest.fail("loaded"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = semanticspec("serve", "--port", port)
    message = f"cannot listen on port {port} of 127.0.0.1: it is in use; choose another --port or --host"
    assert (done.returncode, done.stderr) == (2, f"error: {message}\n")


def test_a_host_that_is_not_of_this_machine(semanticspec, served):
    done = semanticspec("serve", "--host", "192.0.2.1", "--port", "0")
    assert done.returncode == 2
    assert "cannot listen on port 0 of 192.0.2.1: " in done.stderr
    assert served == []


def test_missing_packages_are_named_with_the_command_that_installs_them(semanticspec, served, monkeypatch):
    monkeypatch.setattr(
        "semanticspec.commands.serve.find_spec", lambda name: None if name == "yaml" else name
    )
    done = semanticspec("serve")
    assert done.returncode == 2
    assert done.stderr.startswith("error: serving needs yaml; install with: pip install ")
    assert "server" in done.stderr
    assert served == []
