"""Options of commands that load a pair, see `loading.load_pair`."""

from __future__ import annotations

from typing import Annotated

import typer

from semanticspec.engines.registry import ENGINE_HELP

ModelName = Annotated[
    str | None, typer.Option(help="Hub name, folder or GGUF file; default: the bundled pair.")
]
EngineName = Annotated[str, typer.Option("--engine", help=ENGINE_HELP)]
EngineOfOne = Annotated[
    str | None, typer.Option(help="The same for one of the two models; default: --engine.")
]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
