"""`semanticspec bench`: compares methods on the same problems; `bench report` and `bench join` use its results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from semanticspec.benchmark.methods import known_methods, split_name
from semanticspec.benchmark.options import BenchOptions
from semanticspec.benchmark.tasks import TASKS
from semanticspec.commands.demo_registration import DEMO_TASKS
from semanticspec.commands.option_groups import expand_options, option, option_in
from semanticspec.commands.options import (
    PairOptions,
    SamplingOptions,
    comma_separated,
    output_option,
)
from semanticspec.commands.replay import replay_command
from semanticspec.config import with_optimizations
from semanticspec.errors import ConfigError
from semanticspec.pairs import find_pair
from semanticspec.probes.registry import BUNDLED

_problems_option = option_in("Problems")

bench_app = typer.Typer(
    name="bench", help="Compare methods on the same problems: accuracy, speed, and where the time goes."
)
bench_app.command("replay")(replay_command)


@bench_app.callback(invoke_without_command=True)
@expand_options(without=["rule", "optimizations", "levers"])
def bench_command(
    context: typer.Context,
    *,
    pair: PairOptions,
    sampling: SamplingOptions,
    methods: Annotated[
        str,
        option(
            f"Comma-separated methods: {', '.join(known_methods())}. semantic@S sets a strictness, "
            "+NAME adds an optimization, +default the default ones."
        ),
    ] = "target,semantic,random",
    sweep: Annotated[
        str | None,
        option(
            "For example strictness=0.5,1,2: adds semantic and its random control at each strictness.",
            default="none",
        ),
    ] = None,
    samples: Annotated[int, option("Answers to each problem; accuracy is averaged over them.", min=1)] = 1,
    concurrency: Annotated[
        str, option("Concurrent requests. Comma-separated values run one after another, a folder each.")
    ] = "1",
    task: Annotated[
        str, _problems_option(f"Comma-separated tasks: {', '.join(dict.fromkeys([*DEMO_TASKS, *TASKS]))}.")
    ] = "demo",
    data: Annotated[
        str | None,
        _problems_option(
            "Problems to use instead of the task's own: a JSONL file with the fields problem and answer, or a "
            "Hugging Face data set ORG/NAME[:SPLIT].",
            default="the task's",
        ),
    ] = None,
    num_problems: Annotated[
        int | None,
        _problems_option(
            "Number of problems, from the start of the task.",
            "--num-problems",
            "-n",
            min=1,
            default="all; of demo, 100",
        ),
    ] = None,
    skip: Annotated[
        int,
        _problems_option(
            "How many of these problems to leave out, from the start; `bench join` joins the parts.", min=0
        ),
    ] = 0,
    pilot_data: Annotated[
        str | None,
        _problems_option(
            "Problems of the pilot that sets the random control's acceptance rate.",
            default="the task's last 20",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        output_option(
            "Folder for answers, summary and report; required. An interrupted run in it is resumed."
        ),
    ] = None,
    quiet: Annotated[bool, output_option("Print no line for each answer.")] = False,
) -> None:
    """Compare methods on the same problems: accuracy, speed, and where the time goes.

    Interrupted runs resume: rerun the same command.
    """
    if context.invoked_subcommand is not None:
        return
    if out is None:
        raise ConfigError("--out is missing; expected a folder for answers, summary and report")
    config = with_optimizations(sampling.config(), ())  # those of a method are in its name
    pair, described = described_pair(pair)
    options = BenchOptions(
        tasks=comma_separated(task, "--task"),
        methods=(*comma_separated(methods, "--methods"), *swept_methods(sweep)),
        out=out,
        load_pair=pair.load,
        pair_name=described,
        config=config,
        num_problems=num_problems,
        skip=skip,
        samples=samples,
        concurrency=positive_integers(concurrency, "--concurrency"),
        data=data,
        pilot_data=pilot_data,
        engines=pair.engines,
        dtype=" and ".join(dict.fromkeys(pair.dtypes.values())),
        devices=pair.devices,
        quiet=quiet,
    )
    from semanticspec.benchmark.session import run_bench

    run_bench(options)


@bench_app.command("report")
def report_command(
    folder: Annotated[Path, typer.Argument(help="Folder given to `bench --out`.")],
    methods: Annotated[
        str | None,
        option(
            "Comma-separated methods to compare, on the problems that all of them have finished.",
            default="all",
        ),
    ] = None,
) -> None:
    """Write summary and report again, from the answers in a benchmark's folder."""
    from semanticspec.benchmark.session import remake_report

    remake_report(folder, comma_separated(methods, "--methods") if methods else None)


@bench_app.command("join")
def join_command(
    folders: Annotated[list[Path], typer.Argument(help="Folders given to `bench --out`.")],
    out: Annotated[Path, output_option("New folder for the joined benchmark.")],
) -> None:
    """Join benchmarks that shared a task's problems by --skip and --num-problems."""
    from semanticspec.benchmark.session import join

    join(folders, out)


def described_pair(given: PairOptions) -> tuple[PairOptions, str]:
    """Returns the options with the models of a prepared pair, and a name of the pair for the report.

    Args:
        given: `demo` as the prepared pair is the bundled one.

    Raises:
        ConfigError: there is no such pair, or it does not name both models.
    """
    name = given.pair
    if name in (None, "demo", BUNDLED):
        if name is not None and (given.target or given.draft):
            raise ConfigError(f"--pair {name} has its own models; leave out --pair, or --target and --draft")
        given = replace(given, pair=None)
        return given, BUNDLED if given.target is None else f"{given.target} + {given.draft}"
    prepared = find_pair(str(name))
    models: dict[str, Any] = {
        role: getattr(given, role) or getattr(prepared, role) for role in ("target", "draft")
    }
    for role, model in models.items():
        if model is None:
            raise ConfigError(f"the pair {name!r} does not name its {role} model; add --{role}")
    return replace(given, **models), str(name)


def swept_methods(sweep: str | None) -> tuple[str, ...]:
    """Returns semantic and its random control at each strictness of a sweep such as `strictness=0.5,1,2`.

    Raises:
        ConfigError: the sweep has another form, or a strictness is not above 0.
    """
    if sweep is None:
        return ()
    setting, mark, values = sweep.partition("=")
    if setting.strip() != "strictness" or not mark:
        raise ConfigError(f"--sweep is {sweep!r}; expected for example strictness=0.5,1,2")
    strictnesses = [split_name(f"semantic@{value}")[1] for value in comma_separated(values, "--sweep")]
    return tuple(f"{name}@{value:g}" for value in strictnesses for name in ("semantic", "random"))


def positive_integers(text: str, option: str) -> tuple[int, ...]:
    """Returns the values of an option that takes different comma-separated integers.

    Raises:
        ConfigError: a value is not an integer of 1 or more, or is given twice.
    """
    values = comma_separated(text, option)
    if not all(value.isdecimal() and int(value) for value in values) or len(set(values)) < len(values):
        raise ConfigError(f"{option} is {text!r}; expected different comma-separated integers of 1 or more")
    return tuple(map(int, values))
