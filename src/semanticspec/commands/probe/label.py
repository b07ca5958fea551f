"""`semanticspec probe label`: decides which collected segments mean the same."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from semanticspec.commands.option_groups import expand_options, option
from semanticspec.commands.options import JudgeName, JudgeOptions
from semanticspec.output.progress import say
from semanticspec.training import stages

Data = Annotated[Path, option("Folder of the collection.")]


@expand_options()
def label_command(data: Data, options: JudgeOptions, judge: JudgeName = "exact") -> None:
    """Decide which segments of each context mean the same.

    Interrupted runs resume: rerun the same command.
    """
    config = options.config(judge)
    from semanticspec.training.data.storage import Collection

    stages.run_label(Collection(data), config)
    say(
        f"labelled by the judge {judge}. Next: semanticspec probe train --role target --data {data} "
        f"--judge {judge} --out FOLDER"
    )
