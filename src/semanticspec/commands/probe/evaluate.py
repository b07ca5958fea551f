"""`semanticspec probe evaluate`: measures a probe on test problems."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from semanticspec.commands.option_groups import option
from semanticspec.commands.options import PROBE_HELP, output_option
from semanticspec.commands.probe.label import Data
from semanticspec.commands.probe.roles import PackagedRole, checked_role
from semanticspec.output.files import check_output_folder
from semanticspec.training import stages


def evaluate_command(
    data: Data,
    probe: Annotated[str, option(f"Probe to measure: {PROBE_HELP}")],
    out: Annotated[Path, output_option("Folder for the report.")],
    role: PackagedRole = "target",
    draft_probe: Annotated[
        str | None,
        option(
            "Draft probe; if given, a target probe is also measured by the ratio of both estimates.",
            default="none",
        ),
    ] = None,
    judge: Annotated[
        str,
        option("Judge whose labels to measure against, or outcome.", default="the one it was trained with"),
    ] = "",
    learning_curve: Annotated[
        bool, option("Train again on fewer problems.", "--learning-curve/--no-learning-curve")
    ] = True,
    ablations: Annotated[
        bool,
        option("Train again with fewer inputs, with other losses and with shuffled labels.", "--ablations"),
    ] = False,
) -> None:
    """Compare a probe with cheap signals on test problems; writes figures and an HTML report."""
    author = checked_role(role)
    check_output_folder(out)
    from semanticspec.output.pages import check_report_libraries

    check_report_libraries("probes", "sklearn")
    from semanticspec.probes.probe import Probe
    from semanticspec.probes.registry import locate
    from semanticspec.training.data.storage import Collection

    loaded = Probe.load(locate(probe, author))
    loaded_draft = Probe.load(locate(draft_probe, "draft")) if draft_probe else None
    stages.run_evaluate(
        Collection(data), loaded, out, loaded_draft, judge, learning_curve=learning_curve, ablations=ablations
    )
