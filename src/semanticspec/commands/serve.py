"""`semanticspec serve`: serves a pair at an OpenAI-compatible endpoint."""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from semanticspec.commands.option_groups import expand_options, option_in
from semanticspec.commands.options import PairOptions, SamplingOptions, renamed_levers
from semanticspec.errors import ConfigError
from semanticspec.install_hints import install_hint

_server_option = option_in("Server")
_limits_option = option_in("Limits")


@dataclass(frozen=True)
class ServerOptions:
    """Options of the server itself. Their defaults are those of `ServerSettings`."""

    host: Annotated[
        str, _server_option("Address to listen on; 0.0.0.0 accepts connections from other machines.")
    ] = "127.0.0.1"
    port: Annotated[int, _server_option("Port to listen on; 0 picks a free one.")] = 8000
    api_key: Annotated[
        str | None,
        _server_option(
            "Key that clients must send. Other users of this machine can see keys given on a command line; "
            "prefer the environment variable or --config.",
            envvar="SEMANTICSPEC_API_KEY",
            show_envvar=True,
            default="none",
        ),
    ] = None
    served_model_name: Annotated[
        str | None, _server_option("Model name in the API.", default="the target's name")
    ] = None
    allowed_origins: Annotated[
        list[str] | None,
        _server_option("Origin whose web pages may use this server (CORS); can be repeated.", default="none"),
    ] = None
    max_model_len: Annotated[
        int | None,
        _limits_option(
            "Maximum length of prompt and output together, in target tokens.",
            default="the target's context length",
        ),
    ] = None
    max_concurrent_requests: Annotated[
        int, _limits_option("Outputs decoded at the same time; n=4 counts as four.")
    ] = 16
    max_queued_requests: Annotated[
        int, _limits_option("Outputs that may wait; further requests get status 429.")
    ] = 64
    request_timeout_s: Annotated[
        float, _limits_option("Maximum seconds of a request, including its time in the queue.")
    ] = 600.0
    shutdown_timeout_s: Annotated[
        float, _limits_option("Seconds that running requests may take to finish after SIGTERM.")
    ] = 30.0
    max_body_bytes: Annotated[int, _limits_option("Maximum size of a request body.")] = 4 * 2**20


@expand_options(without=["seed"])
def serve_command(
    context: typer.Context,
    pair: PairOptions,  # noqa: ARG001  (read from the context, together with the settings file)
    sampling: SamplingOptions,  # noqa: ARG001
    server: ServerOptions,  # noqa: ARG001
    config: Annotated[  # noqa: ARG001
        Path | None,
        _server_option("YAML file with any of these options; the command line overrides it.", default="none"),
    ] = None,
) -> None:
    """Serve a pair at an OpenAI-compatible endpoint, with a playground at / that shows which model wrote what.

    Decoding options are the defaults of requests that do not set them.
    """
    given = _given_options(context)
    if "levers" in given:
        given["optimizations"] = renamed_levers("", given.pop("levers"))
    _check_installed()
    from semanticspec.server.settings import read_settings

    settings = read_settings(given.pop("config", None), given)
    from semanticspec.server.run import listen, run_server

    pair_settings = {field.name: getattr(settings, field.name) for field in fields(PairOptions)}
    with listen(settings.host, settings.port) as listening:  # before the models load, which takes longer
        run_server(PairOptions(**pair_settings).load(), settings, listening)


def _given_options(context: typer.Context) -> dict[str, Any]:
    """Returns the options that are set on the command line or in the environment, without those at their defaults."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {
        name: context.params[name]
        for name, source in sources.items()
        if source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")
    }


def _check_installed() -> None:
    """Raises ConfigError if a package of the extra `server` is missing."""
    packages = ("fastapi", "uvicorn", "sse_starlette", "prometheus_client", "yaml")
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ConfigError(f"serving needs {', '.join(missing)}; install with: {install_hint('server')}")
