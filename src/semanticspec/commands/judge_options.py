"""Options that choose a judge, see `training.labels.judges.JudgeConfig`."""

from __future__ import annotations

from typing import Annotated

import typer

JudgeName = Annotated[
    str,
    typer.Option(
        help="Which judge decides what means the same: exact (bundled pair only), numeric, nli, numeric+nli or llm."
    ),
]
JudgeModel = Annotated[
    str | None,
    typer.Option(help="nli: hub name or folder of a classifier; llm: the endpoint's name for its model."),
]
JudgeUrl = Annotated[
    str | None, typer.Option(help="llm: OpenAI-compatible endpoint, such as http://localhost:8000/v1.")
]
JudgeMaxTokens = Annotated[
    int, typer.Option(min=1, help="llm: longest answer; more for a model that thinks.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="nli: pairs of segments in a pass.")]
Requests = Annotated[int, typer.Option(min=1, help="llm: requests at once.")]
JudgeDevice = Annotated[str, typer.Option(help="nli: auto, cpu, cuda, cuda:N or mps.")]
