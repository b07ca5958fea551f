"""Runs one replay: checks the options, builds the models, plays, and writes the summary."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from rich.console import Console

from semanticspec.benchmark.folder import SUMMARY_FILE
from semanticspec.benchmark.provenance import describe_machine, describe_versions
from semanticspec.benchmark.replay import NOTE
from semanticspec.benchmark.replay.cases import Case, make_cases, read_decisions
from semanticspec.benchmark.replay.folder import Key, Record, ReplayFolder
from semanticspec.benchmark.replay.options import ReplayOptions
from semanticspec.benchmark.replay.plan import Plan
from semanticspec.benchmark.replay.play import play
from semanticspec.benchmark.replay.shapes import Shape, build_model, check_place, count_parameters, find_shape
from semanticspec.benchmark.replay.summary import costs_text, replay_table, summarize, whole_trials
from semanticspec.engines.base import Engine
from semanticspec.errors import ConfigError
from semanticspec.output.console import print_table
from semanticspec.output.files import check_output_folder
from semanticspec.output.progress import progress_bar, say

FORMAT = 1
_WARM_UP_TOKENS = 16
_WARM_UP_TURNS = 2


def run_replay(options: ReplayOptions) -> None:
    """Plays what is missing, then writes and prints the summary; also when interrupted.

    Raises:
        SemanticSpecError: the options cannot work; most of this is checked before a model is built.
    """
    session = _Session(options)
    with session.folder.locked():
        session.run()


class _Session:
    """One replay. The constructor checks everything that needs no model."""

    def __init__(self, options: ReplayOptions) -> None:
        check_output_folder(options.out)
        self.options, self.folder = options, ReplayFolder(options.out)
        check_place(options.device, options.dtype)
        self.shapes = {"target": find_shape(options.target), "draft": find_shape(options.draft)}
        self.decisions = read_decisions(options)
        self.cases = make_cases(options, self.decisions)
        self._check_length()
        self.shared: dict[str, Any] = {
            "format": FORMAT,
            "note": NOTE,
            **{role: _described(shape) for role, shape in self.shapes.items()},
            "dtype": options.dtype,
            "device": options.device,
            "seed": options.seed,
            "machine": describe_machine(options.device),
            "versions": describe_versions(),
        }
        self.described = {case.name: {"decisions": case.digests()} for case in self.cases}
        self.folder.check_is_none_of_a_benchmark()
        self.folder.check(self.shared, self.described)
        self.plays = self.folder.plays()

    def run(self) -> None:
        options = self.options
        self.folder.save_config(
            self.shared,
            self.described,
            source=self.decisions.described,
            trials=options.trials,
            command=shlex.join(["semanticspec", *sys.argv[1:]]),
        )
        say(NOTE)
        try:
            self._play_missing()
        except KeyboardInterrupt:
            say("interrupted; finished plays are kept, rerun the same command to resume")
            self._conclude()
            raise
        self._conclude()

    def _play_missing(self) -> None:
        missing = [key for key in _schedule(self.cases, self.options.trials) if key not in self.plays]
        if not missing:
            return
        plans = {case.name: case.plans for case in self.cases}
        with asyncio.Runner() as runner, self._engines(runner) as (target, draft):
            for case in self.cases:
                runner.run(play(_warm_up(case.plans[0]), target, draft))
            with progress_bar("replay") as (progress, on_total):
                on_total(len(missing))
                for trial, request, name in missing:
                    done = runner.run(play(plans[name][request], target, draft, self.options.seed + request))
                    record = Record(trial, request, name, done)
                    self.folder.add(record)
                    self.plays[record.key] = record
                    progress(f"{name}: {done.wall_s:.1f} s")

    @contextmanager
    def _engines(self, runner: asyncio.Runner) -> Iterator[tuple[Engine, Engine]]:
        """Yields engines of both models with random weights, and frees them afterwards."""
        from semanticspec.engines.transformers.engine import TransformersEngine

        engines: list[Engine] = []
        try:
            for number, (role, shape) in enumerate(self.shapes.items()):
                parameters = self.shared[role]["parameters"]
                say(f"{role}: {shape.name}, {parameters:,} random weights ({shape.source})")
                seed = self.options.seed + number
                model = build_model(shape, device=self.options.device, dtype=self.options.dtype, seed=seed)
                engines.append(TransformersEngine.of(model, f"{shape.name}, random weights"))
            target, draft = engines
            yield target, draft
        finally:
            for engine in engines:
                runner.run(engine.aclose())

    def _conclude(self) -> None:
        """Writes summary and table of the complete trials."""
        trials = whole_trials(self.plays, self.cases, self.options.trials)
        if not trials:
            say("no trial is complete yet")
            return
        described = {name: self.shared[name] for name in ("target", "draft", "dtype", "device", "machine")}
        summary = summarize(self.plays, self.cases, trials, self.decisions) | described
        self.folder.write_summary(summary)
        print_table(replay_table(summary))
        Console(soft_wrap=True, highlight=False).print(costs_text(summary))
        say(f"summary: {self.folder.path / SUMMARY_FILE}")

    def _check_length(self) -> None:
        """Raises ConfigError if a text would not fit a model's context."""
        longest = max(
            plan.prompt_tokens + plan.counts().num_tokens + max(turn.drafted for turn in plan.turns)
            for case in self.cases
            for plan in case.plans
        )
        for role, shape in self.shapes.items():
            room = shape.values.get("max_position_embeddings")
            if isinstance(room, int) and longest > room:
                raise ConfigError(
                    f"prompt, output and draft need up to {longest} tokens, and the context of the {role}, "
                    f"{shape.name}, holds {room}; replay shorter requests or choose another shape"
                )


def _described(shape: Shape) -> dict[str, Any]:
    parameters = count_parameters(shape)
    return {"name": shape.name, "source": shape.source, "parameters": parameters, "shape": dict(shape.values)}


def _schedule(cases: Sequence[Case], trials: int) -> Iterator[Key]:
    """Yields every play, request by request; the case that goes first rotates."""
    turn = 0
    for trial in range(trials):
        for request in range(len(cases[0].plans)):
            first = turn % len(cases)
            turn += 1
            for case in (*cases[first:], *cases[:first]):
                yield trial, request, case.name


def _warm_up(plan: Plan) -> Plan:
    """Shortens a plan to one untimed warm-up."""
    turns = [
        replace(turn, streamed=min(turn.streamed, _WARM_UP_TOKENS)) for turn in plan.turns[:_WARM_UP_TURNS]
    ]
    return replace(plan, turns=tuple(turns))
