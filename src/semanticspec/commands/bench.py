"""`semanticspec bench`: options in, checks before anything is loaded, then `session`. Importing this is light."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semanticspec.benchmark.options import BenchOptions
from semanticspec.commands.replay import replay_command
from semanticspec.config import PRESETS, preset, with_options
from semanticspec.engines.registry import DEFAULT_ENGINE, ENGINE_HELP
from semanticspec.errors import ConfigError

bench_app = typer.Typer(
    name="bench",
    help="Compare methods side by side on the same problems: accuracy, speed, and where the time goes.",
)
bench_app.command("replay")(replay_command)

DEFAULT_METHODS = "target,semantic,random"


@bench_app.callback(invoke_without_command=True)
def bench_command(
    context: typer.Context,
    pair: Annotated[
        str | None,
        typer.Option(help="demo (the default), or a packaged pair, see `semanticspec probe list`."),
    ] = None,
    target: Annotated[str | None, typer.Option(help="Hub name, folder or GGUF file.")] = None,
    draft: Annotated[str | None, typer.Option(help="Hub name, folder or GGUF file.")] = None,
    target_probe: Annotated[str | None, typer.Option(help="Folder, packaged or hub name.")] = None,
    draft_probe: Annotated[str | None, typer.Option(help="Folder, packaged or hub name.")] = None,
    task: Annotated[
        str,
        typer.Option(
            help="demo, demo-validation, gsm8k, math500, aime24, aime25, amc23, gpqa_diamond, custom; by commas."
        ),
    ] = "demo",
    data: Annotated[
        str | None,
        typer.Option(
            help="JSONL with `problem` and `answer`, or ORG/NAME[:SPLIT], in place of the task's own."
        ),
    ] = None,
    methods: Annotated[
        str,
        typer.Option(
            help="By commas: target, draft, token, semantic, semantic-paper, top-k, random, always, never, "
            "semantic@STRICTNESS, and other systems'."
        ),
    ] = DEFAULT_METHODS,
    num_problems: Annotated[
        int | None,
        typer.Option("--num-problems", "-n", min=1, help="The first so many; default: all (demo: 100)."),
    ] = None,
    skip: Annotated[
        int,
        typer.Option(
            min=0, help="Of these, leave out the first so many: several machines can share a benchmark."
        ),
    ] = 0,
    samples: Annotated[
        int, typer.Option(min=1, help="Outputs for each problem; accuracy is their mean.")
    ] = 1,
    concurrency: Annotated[
        str,
        typer.Option(
            help="Requests at once, for throughput; several by commas, each in a folder of its own."
        ),
    ] = "1",
    sweep: Annotated[
        str | None, typer.Option(help="strictness=0.5,1,2: semantic and its random control at each.")
    ] = None,
    pilot_data: Annotated[
        str | None,
        typer.Option(help="Problems for the random control's pilot; default: the last 20 of the task's."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; an unfinished one is continued.")] = None,
    preset_name: Annotated[str, typer.Option("--preset", help=f"{' or '.join(PRESETS)}.")] = "default",
    strictness: Annotated[float | None, typer.Option(help="Of semantic and random.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest output, in target tokens.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy; default 0.6.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Default 0.95.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same texts.")] = 0,
    engine: Annotated[str, typer.Option(help=ENGINE_HELP)] = DEFAULT_ENGINE,
    target_engine: Annotated[str | None, typer.Option(help="Of the target; default: --engine.")] = None,
    draft_engine: Annotated[str | None, typer.Option(help="Of the draft; default: --engine.")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    target_device: Annotated[str | None, typer.Option(help="Of the target; default: --device.")] = None,
    draft_device: Annotated[str | None, typer.Option(help="Of the draft; default: --device.")] = None,
    quiet: Annotated[bool, typer.Option(help="No line for every answer.")] = False,
) -> None:
    """Compare methods on the same problems. Ctrl-C keeps what is done; the same command goes on."""
    if context.invoked_subcommand is not None:
        return
    if out is None:
        raise ConfigError("--out is missing; name a folder for rows, summary and report")
    config = with_options(
        preset(preset_name),
        strictness=strictness,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
    )
    models, pair_name = find_pair(pair, target, draft, target_probe, draft_probe)
    options = BenchOptions(
        tasks=_listed(task, "--task"),
        methods=(*_listed(methods, "--methods"), *swept(sweep)),
        out=out,
        models=models,
        pair_name=pair_name,
        config=config,
        num_problems=num_problems,
        skip=skip,
        samples=samples,
        concurrency=counts(concurrency, "--concurrency"),
        data=data,
        pilot_data=pilot_data,
        engines={"target": target_engine or engine, "draft": draft_engine or engine},
        dtype=dtype,
        devices={"target": target_device or device, "draft": draft_device or device},
        quiet=quiet,
    )
    from semanticspec.benchmark.session import run_bench

    run_bench(options)


@bench_app.command("report")
def report_command(
    folder: Annotated[Path, typer.Argument(help="The folder that was given to --out.")],
    methods: Annotated[
        str | None, typer.Option(help="Only these, by commas: problems that all of them have finished.")
    ] = None,
) -> None:
    """Make summary, pictures and page again from the rows."""
    from semanticspec.benchmark.session import remake_report

    remake_report(folder, _listed(methods, "--methods") if methods else None)


@bench_app.command("join")
def join_command(
    folders: Annotated[list[Path], typer.Argument(help="Folders that were given to --out.")],
    out: Annotated[Path, typer.Option(help="A new folder.")],
) -> None:
    """Make one benchmark of several that shared its problems by --skip and -n."""
    from semanticspec.benchmark.session import join

    join(folders, out)


def find_pair(
    pair: str | None,
    target: str | None,
    draft: str | None,
    target_probe: str | None,
    draft_probe: str | None,
) -> tuple[dict[str, str | None], str]:
    """What to load and what to call it. A packaged pair brings its probes and its models' names.

    Raises:
        ConfigError: there is no such pair, or it leaves a model's name open.
    """
    from semanticspec.probes.registry import BUNDLED, packaged_probes

    given = {"target": target, "draft": draft, "target_probe": target_probe, "draft_probe": draft_probe}
    if pair in (None, "demo", BUNDLED):
        if pair is not None and (target or draft):
            raise ConfigError(f"--pair {pair} has its own models; leave --pair out, or --target and --draft")
        return given, BUNDLED if target is None else f"{target} + {draft}"
    probes = {probe.role: probe for probe in packaged_probes() if probe.pair == pair}
    if set(probes) != {"target", "draft"}:
        known = sorted({probe.pair for probe in packaged_probes()} - {BUNDLED})
        raise ConfigError(
            f"there is no pair {pair!r}; choose from {', '.join(['demo', *known])}, or name the models"
        )
    found: dict[str, str | None] = {}
    for role, probe in probes.items():
        names = [name for name in (probe.card.model_id, *probe.card.model_names) if name.count("/") == 1]
        found |= {role: next((name for name in names if not name.startswith((".", "/"))), None)}
        found |= {f"{role}_probe": pair}
    found |= {name: value for name, value in given.items() if value is not None}
    for role in ("target", "draft"):
        if found[role] is None:
            raise ConfigError(f"the probes of {pair!r} do not say which model is the {role}; give --{role}")
    return found, str(pair)


def swept(sweep: str | None) -> tuple[str, ...]:
    """The methods of a sweep: semantic and its random control at each strictness.

    Raises:
        ConfigError: it is not `strictness=` and numbers above 0.
    """
    if sweep is None:
        return ()
    knob, mark, values = sweep.partition("=")
    if knob.strip() != "strictness" or not mark:
        raise ConfigError(
            f"--sweep is {sweep!r}; expected strictness= and numbers above 0, such as strictness=0.5,1,2"
        )
    listed = _listed(values, "--sweep")
    from semanticspec.benchmark.methods import split_name

    for value in listed:
        split_name(f"semantic@{value}")
    return tuple(f"{name}@{float(value):g}" for value in listed for name in ("semantic", "random"))


def counts(text: str, option: str) -> tuple[int, ...]:
    """Whole numbers of 1 and more, by commas, each once.

    Raises:
        ConfigError: one is none.
    """
    listed = _listed(text, option)
    if not all(number.isdecimal() and int(number) for number in listed) or len(set(listed)) < len(listed):
        raise ConfigError(f"{option} is {text!r}; expected whole numbers of 1 and more, by commas, each once")
    return tuple(map(int, listed))


def _listed(text: str, option: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise ConfigError(f"{option} is empty; name at least one, several by commas")
    return names
