"""`semanticspec serve`: options in, checks before anything is loaded, then `running`. Importing this is light."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from semanticspec.config import OPTIMIZATIONS_HELP, PRESETS, RULES
from semanticspec.engines.registry import ENGINE_HELP
from semanticspec.errors import ConfigError

ModelName = Annotated[
    str | None, typer.Option(help="Hub name, folder or GGUF file; default: the bundled pair.")
]
ProbeName = Annotated[str | None, typer.Option(help="Folder, packaged or hub name.")]


def serve_command(
    target: ModelName = None,
    draft: ModelName = None,
    target_probe: ProbeName = None,
    draft_probe: ProbeName = None,
    engine: Annotated[str | None, typer.Option(help=ENGINE_HELP)] = None,
    target_engine: Annotated[str | None, typer.Option(help="Of the target; default: --engine.")] = None,
    draft_engine: Annotated[str | None, typer.Option(help="Of the draft; default: --engine.")] = None,
    host: Annotated[
        str | None, typer.Option(help="Default 127.0.0.1: this machine only. 0.0.0.0 is all.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Default 8000; 0 picks a free one.")] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="SEMANTICSPEC_API_KEY",
            show_envvar=True,
            help="Clients have to send it. On the command line other users of the machine can see it.",
        ),
    ] = None,
    served_model_name: Annotated[
        str | None, typer.Option(help="What clients call the model; default: the target's name.")
    ] = None,
    max_model_len: Annotated[
        int | None, typer.Option(help="Longest prompt and output together, in target tokens.")
    ] = None,
    max_concurrent_requests: Annotated[
        int | None, typer.Option(help="Outputs that are written at a time; default 16.")
    ] = None,
    max_queued_requests: Annotated[
        int | None, typer.Option(help="How many more may wait; default 64. Beyond: 429.")
    ] = None,
    request_timeout_s: Annotated[
        float | None, typer.Option(help="From a request's arrival to its end; default 600.")
    ] = None,
    shutdown_timeout_s: Annotated[
        float | None, typer.Option(help="For requests to finish in after SIGTERM; default 30.")
    ] = None,
    max_body_bytes: Annotated[int | None, typer.Option(help="Longest request body; default 4 MiB.")] = None,
    allowed_origins: Annotated[
        list[str] | None, typer.Option(help="Origin of web pages that may use this server; can be repeated.")
    ] = None,
    preset_name: Annotated[str | None, typer.Option("--preset", help=f"{' or '.join(PRESETS)}.")] = None,
    rule: Annotated[str | None, typer.Option(help=f"Default of requests: {', '.join(RULES)}.")] = None,
    strictness: Annotated[float | None, typer.Option(help="Default of requests, above 0.")] = None,
    optimizations: Annotated[str | None, typer.Option(help=OPTIMIZATIONS_HELP)] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Longest output where a chat request names none.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Default of requests; 0.6.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Default of requests; 0.95.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = None,
    target_device: Annotated[str | None, typer.Option(help="Of the target; default: --device.")] = None,
    draft_device: Annotated[str | None, typer.Option(help="Of the draft; default: --device.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file with any of these options; the command line wins.")
    ] = None,
) -> None:
    """Serve a pair at an OpenAI-compatible endpoint, with a page at / that shows who wrote what."""
    options = dict(locals())  # exactly the parameters
    options["preset"] = options.pop("preset_name")
    file = options.pop("config")
    check_installed()
    from semanticspec.server.settings import read_settings

    settings = read_settings(file, options)
    from semanticspec.loading import load_pair
    from semanticspec.server.run import run_server

    target_engine, draft_engine = settings.engines
    pair = load_pair(
        settings.target,
        settings.draft,
        target_probe=settings.target_probe,
        draft_probe=settings.draft_probe,
        dtype=settings.dtype,
        device=settings.device,
        target_device=settings.target_device,
        draft_device=settings.draft_device,
        target_engine=target_engine,
        draft_engine=draft_engine,
    )
    run_server(pair, settings)


def check_installed() -> None:
    """Raises ConfigError if a package of the extra is missing, before anything is loaded."""
    packages = ("fastapi", "uvicorn", "sse_starlette", "prometheus_client", "yaml")
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ConfigError(f"serving needs {', '.join(missing)}: pip install 'semanticspec[server]'")
