"""`semanticspec doctor`: checks a pair and says whether speculation can pay."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from semanticspec.commands.option_groups import expand_options
from semanticspec.commands.options import PairOptions, output_option
from semanticspec.output.console import messages

if TYPE_CHECKING:
    from semanticspec.decoding.pair import Pair
    from semanticspec.doctor.checks import Finding
    from semanticspec.doctor.costs import Costs

_MARKS = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "problem": "[red]problem[/]"}


@expand_options()
def doctor_command(
    pair: PairOptions,
    seconds: Annotated[
        float, typer.Option(min=1, help="Time for the measurements, in seconds; loading comes on top.")
    ] = 20,
    as_json: Annotated[bool, output_option("Print one JSON object instead of text.", "--json")] = False,
) -> None:
    """Check a pair: tokenizers, templates, boundaries, probes, costs; can speculation pay?

    Costs are measured one request at a time, on the machine as it is: close other programs first.
    """
    messages().print("loading the models ...", style="dim")
    loaded = pair.load()
    findings, costs, sentences = asyncio.run(_examine(loaded, seconds))
    if as_json:
        report = {
            "pair": loaded.name,
            "findings": [asdict(finding) for finding in findings],
            "costs": asdict(costs),
            "limit_speedup": costs.segment_limit(),
            "verdict": sentences,
        }
        typer.echo(json.dumps(report, ensure_ascii=False, indent=2))
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    for style in ("", "bold", ""):
        table.add_column(style=style, vertical="top")
    for finding in findings:
        table.add_row(_MARKS[finding.level], finding.subject, finding.text)
    console = Console(highlight=False)
    console.print(table)
    console.print()
    for sentence in sentences:
        console.print(sentence, soft_wrap=True)


def _prompt(pair: Pair) -> str:
    """Returns a prompt of the kind that the pair answers: the bundled pair knows only its own problems."""
    from semanticspec.demo.problems import demo_problems
    from semanticspec.doctor.costs import PROMPT
    from semanticspec.loading import BUNDLED

    return demo_problems("validation", 1)[0].prompt if pair.name == BUNDLED else PROMPT


async def _examine(pair: Pair, seconds: float) -> tuple[list[Finding], Costs, list[str]]:
    """Runs all checks and measurements, then closes the pair."""
    from semanticspec.doctor.advice import cost_findings, verdict
    from semanticspec.doctor.checks import check_pair
    from semanticspec.doctor.costs import measure_costs

    try:
        findings = check_pair(pair)
        messages().print(f"measuring for about {seconds:g} s ...", style="dim")
        costs = await measure_costs(pair, seconds, _prompt(pair))
    finally:
        await pair.aclose()
    distributions = all(model.engine.info.capabilities.distributions for model in (pair.target, pair.draft))
    sentences = verdict(
        costs,
        token_level=pair.same_vocabulary and distributions,
        has_probes=pair.target_probe is not None and pair.draft_probe is not None,
    )
    return findings + cost_findings(costs), costs, sentences
