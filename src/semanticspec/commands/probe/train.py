"""`semanticspec probe train`: trains a probe on a labelled collection."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from semanticspec.commands.option_groups import option, option_in
from semanticspec.commands.options import output_option
from semanticspec.commands.probe.label import Data
from semanticspec.commands.probe.roles import trained_role
from semanticspec.errors import ConfigError
from semanticspec.output.files import check_output_folder
from semanticspec.probes.features import named_features
from semanticspec.records import Author
from semanticspec.training import stages
from semanticspec.training.labels.outcomes import OUTCOME

_inputs_option = option_in("Inputs of the probe")
_training_option = option_in("Training")


def train_command(
    *,
    role: Annotated[
        str,
        option(
            "Which model the probe is for: target or draft; or joint: a probe of the target that reads both models' "
            "passes."
        ),
    ],
    data: Data,
    judge: Annotated[str, option("Judge whose labels to train on.")] = "exact",
    label: Annotated[
        str,
        option(
            "meaning: how often the model says what the segment says, by the judge; or outcome: how often the target's "
            "answer is right after it (target only, see probe outcomes)."
        ),
    ] = "meaning",
    estimator: Annotated[
        str,
        _inputs_option(
            "features, state, both, components (of the state, and features), auto (the best of these on "
            "validation problems) or given (as set by the options below)."
        ),
    ] = "given",
    features: Annotated[
        str,
        _inputs_option(
            "Comma-separated features in addition to the state; all; or portable (log-probabilities and ranks, which "
            "every engine gives).",
            default="none",
        ),
    ] = "",
    state: Annotated[bool, _inputs_option("Use the pooled hidden state.", "--state/--no-state")] = True,
    components: Annotated[
        int, _inputs_option("Principal components of the state; 0 uses the state itself.", min=0)
    ] = 0,
    pooling: Annotated[
        str | None,
        _inputs_option(
            "Pooling of a segment's hidden states: mean, last or attention (learned).", default="as collected"
        ),
    ] = None,
    widths: Annotated[
        str | None,
        _training_option(
            "Comma-separated widths of the hidden layers, for example 256,64; or none.", default="the paper's"
        ),
    ] = None,
    loss: Annotated[str, _training_option("Loss: bce, or mse (the paper's).")] = "bce",
    counting: Annotated[
        str, _training_option("How labels are counted: unbiased (leave the segment itself out), or paper.")
    ] = "unbiased",
    calibration: Annotated[
        str,
        _training_option("Calibration map, fitted on validation problems: auto, none, platt or isotonic."),
    ] = "auto",
    weight_decay: Annotated[float, _training_option("Weight decay of AdamW; 0 is plain Adam.", min=0)] = 0.0,
    max_epochs: Annotated[
        int, _training_option("Maximum epochs; training stops early without improvement.", min=1)
    ] = 100,
    seed: Annotated[int, _training_option("Random seed; the same seed gives the same probe.", min=0)] = 0,
    out: Annotated[Path, output_option("Folder for the probe.")],
    model_name: Annotated[
        list[str] | None,
        output_option(
            "Further name of the model for the probe's card, such as its Hugging Face name; can be repeated.",
            default="none",
        ),
    ] = None,
) -> None:
    """Train a probe, and measure it on test problems that were held out from training."""
    author, joint = trained_role(role)
    labels = _labels(label, judge, author)
    check_output_folder(out)
    hidden_widths = _integers(widths) if widths else None
    from semanticspec.training.data.storage import Collection
    from semanticspec.training.train import TrainConfig

    checked_when_made: Any = {
        "estimator": estimator,
        "pooling": pooling,
        "loss": loss,
        "counting": counting,
        "calibration": calibration,
    }
    config = TrainConfig(
        widths=hidden_widths,
        features=named_features(features, author, joint=joint),
        use_state=state,
        components=components,
        weight_decay=weight_decay,
        max_epochs=max_epochs,
        seed=seed,
        joint=joint,
        **checked_when_made,
    )
    stages.run_train(Collection(data), author, labels, config, out, tuple(model_name or ()))


def _labels(label: str, judge: str, role: Author) -> str:
    """Returns the name of the labels: `outcome`, or that of the judge."""
    if label not in ("meaning", OUTCOME):
        raise ConfigError(f"--label is {label!r}; expected meaning or {OUTCOME}")
    if label == OUTCOME and role == "draft":
        raise ConfigError(
            "--label outcome is for --role target; train the draft's probe with --label meaning"
        )
    return OUTCOME if label == OUTCOME else judge


def _integers(text: str) -> tuple[int, ...]:
    """Returns the values of `--widths`; none for a linear probe."""
    if text == "none":
        return ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"--widths is {text!r}; expected comma-separated integers such as 256,64, or none"
        ) from error
