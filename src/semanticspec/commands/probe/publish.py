"""`semanticspec probe publish`: writes a probe with a model card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from semanticspec.commands.option_groups import option
from semanticspec.commands.options import PROBE_HELP, output_option
from semanticspec.commands.probe.roles import PackagedRole, checked_role
from semanticspec.output.progress import say
from semanticspec.probes.registry import locate
from semanticspec.training.stages import storing


def publish_command(
    probe: Annotated[str, option(f"Probe to publish: {PROBE_HELP}")],
    to: Annotated[str, output_option("Folder to write to; with --push, Hugging Face repository OWNER/NAME.")],
    role: PackagedRole = "target",
    evaluation: Annotated[
        Path | None,
        option("Folder that `probe evaluate` wrote, for the figures of the README.", default="none"),
    ] = None,
    push: Annotated[bool, output_option("Upload to the Hugging Face Hub.", "--push")] = False,
    private: Annotated[bool, output_option("Create a private repository.", "--private")] = False,
) -> None:
    """Write a probe and its README into a folder, or upload them to the Hugging Face Hub."""
    folder = locate(probe, checked_role(role))
    from semanticspec.training import publish

    if push:
        say(f"uploaded: {publish.push(folder, to, evaluation, private=private)}")
    else:
        with storing(Path(to)):
            published = publish.publish(folder, Path(to), evaluation)
        say(f"probe and README in {published}")
