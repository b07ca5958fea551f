"""Runs a benchmark from its options to its report: checks first, then measures what is missing, then reports."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from semanticspec.benchmark.costs import TARGETS
from semanticspec.benchmark.folder import CONFIG_FILE, FORMAT, BenchConfig, BenchFolder
from semanticspec.benchmark.grading import Grader
from semanticspec.benchmark.methods import Method, check_names, split_name
from semanticspec.benchmark.options import BenchOptions
from semanticspec.benchmark.provenance import (
    describe_machine,
    describe_method,
    describe_pair,
    describe_versions,
)
from semanticspec.benchmark.report import check_libraries, print_summary, write_report, write_throughput
from semanticspec.benchmark.rows import RowKey
from semanticspec.benchmark.runner import RunContext, make_calibrated_method, run
from semanticspec.benchmark.tasks import PILOT_PROBLEMS, BenchProblem, Task, find_task
from semanticspec.config import RuleConfig
from semanticspec.decoding.pair import Pair
from semanticspec.errors import BenchmarkError, ConfigError
from semanticspec.output.files import check_output_folder
from semanticspec.output.progress import progress_bar, say

_CONCURRENCY_FOLDER = "concurrency-"
_RULE = TypeAdapter(RuleConfig)


def run_bench(options: BenchOptions) -> None:
    """Runs every task, each into its folder: `out` itself, or a subfolder for each of several tasks or concurrencies.

    Raises:
        SemanticSpecError: an option is invalid; as far as possible, this is checked before models are loaded.
    """
    check_names(options.methods)
    if not any(name in TARGETS for name in options.methods):
        raise ConfigError(
            f"--methods has no baseline; add {' or '.join(TARGETS)} (speed-up is relative to the faster of them)"
        )
    tasks = [find_task(name) for name in options.tasks]
    if len(tasks) > 1 and (options.data or options.pilot_data):
        raise ConfigError("--data and --pilot-data are for one task; run the tasks one by one")
    check_libraries()
    runs = [_TaskRun(options, task, concurrency) for task in tasks for concurrency in options.concurrency]
    pair = options.load_pair()
    try:
        for task_run in runs:
            with task_run.folder.locked():
                task_run.run(pair)
    finally:
        asyncio.run(pair.aclose())
    _compare_concurrencies([task_run.folder for task_run in runs])


def remake_report(path: Path, methods: Sequence[str] | None) -> None:
    """Writes summary and report of each benchmark in a folder again, and prints the tables.

    Args:
        methods: only these; None for all.
    """
    check_libraries()
    folders = [BenchFolder(path)]
    if not folders[0].exists:
        folders = [BenchFolder(file.parent) for file in sorted(path.glob(f"*/**/{CONFIG_FILE}"))] or folders
    for folder in folders:
        _report(folder, methods)
    _compare_concurrencies(folders)


def join(paths: Sequence[Path], out: Path) -> None:
    """Joins benchmarks that ran on different problems of one task, and writes the report.

    Raises:
        BenchmarkError: they differ in more than problems and methods, or `out` already holds results.
    """
    check_libraries()
    check_output_folder(out)
    folder = BenchFolder(out)
    with folder.locked():
        folder.join([BenchFolder(path) for path in paths])
    _report(folder)


class _TaskRun:
    """One task at one concurrency, in one folder. The constructor checks what can be checked without models."""

    def __init__(self, options: BenchOptions, task: Task, concurrency: int) -> None:
        self.options, self.task, self.concurrency = options, task, concurrency
        self.folder = BenchFolder(_folder_path(options, task, concurrency))
        check_output_folder(self.folder.path)
        task.check_grader()
        seed = options.config.seed
        self.problems, self.pilot = task.read(options.data, options.num_problems, seed)
        if options.skip >= len(self.problems):
            raise ConfigError(
                f"--skip {options.skip} leaves none of the {len(self.problems)} problems of {task.name}; skip fewer"
            )
        self.asked = self.problems[options.skip :]
        if options.pilot_data is not None:
            self.pilot = task.read_all(options.pilot_data, seed)[:PILOT_PROBLEMS]
        if any(split_name(name)[0] == "random" for name in options.methods):
            self._check_pilot()
        self.description: dict[str, Any] = {
            "format": FORMAT,
            "task": task.name,
            "data": task.data_name(options.data),
            "pair_name": options.pair_name,
            "seed": seed,
            "options_seed": seed if task.multiple_choice else None,
            "engines": options.engines,
            "dtype": options.dtype,
            "device": ", ".join(dict.fromkeys(options.devices.values())),
            "decoding": asdict(options.config),
            "concurrency": concurrency,
        }
        self.folder.check(self.description, {})
        self.saved: BenchConfig | None = self.folder.config() if self.folder.exists else None
        self.rows = self.folder.rows()
        self.folder.check_rows(self.rows, self.problems)

    def run(self, pair: Pair) -> None:
        """Measures what is missing, then writes the report; on Ctrl-C, the report of what is done."""
        self.description |= {
            "pair": describe_pair(pair),
            "machine": describe_machine(self.options.devices["target"]),
            "versions": describe_versions(),
        }
        self.folder.check(self.description, {})
        grader = self.task.start_grader()
        try:
            self._check_golds(grader)
            context = RunContext(self.task.name, pair, grader, self.options.config.seed)
            methods = [
                make_calibrated_method(name, context, self.options.config, self.pilot, self._saved_rule(name))
                for name in self.options.methods
            ]
            self._save_config(methods)
            self._measure(context, methods)
        except KeyboardInterrupt:
            say("interrupted; rows are kept, rerun the same command to resume")
            if self.folder.exists:
                _report(self.folder)
            raise
        finally:
            grader.close()
        _report(self.folder)

    def _save_config(self, methods: Sequence[Method]) -> None:
        described = {method.name: describe_method(method) for method in methods}
        self.folder.check(self.description, described)
        pilot = [problem.problem_id for problem in self.pilot]
        pilots = {name: pilot for name in self.options.methods if split_name(name)[0] == "random"}
        self.folder.save_config(
            self.description,
            described,
            problems=len({p.problem_id for p in self.asked} | {row.problem_id for row in self.rows}),
            samples=self.options.samples,
            pilots={**(self.saved["pilots"] if self.saved else {}), **pilots},
            command=shlex.join(["semanticspec", *sys.argv[1:]]),
        )

    def _measure(self, context: RunContext, methods: Sequence[Method]) -> None:
        def keys(problems: Sequence[BenchProblem]) -> set[RowKey]:
            return {
                (self.task.name, problem.problem_id, sample, method.name)
                for problem in problems
                for sample in range(self.options.samples)
                for method in methods
            }

        done = {row.key for row in self.rows}
        wanted, skipped = keys(self.asked), keys(self.problems[: self.options.skip])
        num_done = len(wanted & done)
        if num_done:
            say(f"resuming: {num_done} of {len(wanted)} requests are done")
        with progress_bar(self.task.name, quiet=self.options.quiet) as (progress, on_total):
            on_total(len(wanted) - num_done)
            extent = {"samples": self.options.samples, "concurrency": self.concurrency}
            for row in run(context, self.problems, methods, **extent, done=done | skipped):
                self.folder.append(row)
                state = "failed" if row.failed else "right" if row.right else "wrong"
                progress(
                    f"{row.problem_id} {row.method} {state}, {row.num_tokens} tokens in {row.wall_s:.1f} s"
                )

    def _saved_rule(self, name: str) -> RuleConfig | None:
        """Returns the rule of a random control from an earlier run in this folder; None for other methods.

        Raises:
            BenchmarkError: it comes from a pilot on other problems.
        """
        if split_name(name)[0] != "random" or self.saved is None or name not in self.saved["methods"]:
            return None
        if self.saved["pilots"].get(name) != [problem.problem_id for problem in self.pilot]:
            raise BenchmarkError(
                f"{self.folder.path} has {name} from a pilot on other problems; use the same --pilot-data, or another "
                "--out (existing rows are kept)"
            )
        return _RULE.validate_python(self.saved["methods"][name]["config"]["rule"])

    def _check_pilot(self) -> None:
        """Removes compared problems from the pilot; raises ConfigError if it has too few others."""
        compared = {problem.prompt for problem in self.problems}
        others = [problem for problem in self.pilot if problem.prompt not in compared]
        if len(others) < PILOT_PROBLEMS:
            most = len(self.problems) + len(others) - PILOT_PROBLEMS
            fewer = f"use -n {most} or fewer, " if most > 0 and self.options.pilot_data is None else ""
            raise ConfigError(
                f"the random control needs a pilot of {PILOT_PROBLEMS} problems that are not compared, and there are "
                f"{len(others)}; {fewer}add others with --pilot-data, or leave random out"
            )
        self.pilot = others

    def _check_golds(self, grader: Grader) -> None:
        """Warns of gold answers that the grader does not accept themselves; no method can get these right."""
        if self.task.generate is not None:
            return
        unread = [
            problem.problem_id
            for problem in self.problems
            if not grader.grade(f"\\boxed{{{problem.gold}}}", problem.gold, truncated=False).right
        ]
        if unread:
            listed = ", ".join(unread[:5]) + (" ..." if len(unread) > 5 else "")
            say(
                f"warning: math-verify cannot parse {len(unread)} gold answers, which no answer matches: {listed}"
            )


def _folder_path(options: BenchOptions, task: Task, concurrency: int) -> Path:
    path = options.out / task.name if len(options.tasks) > 1 else options.out
    return path / f"{_CONCURRENCY_FOLDER}{concurrency}" if len(options.concurrency) > 1 else path


def _report(folder: BenchFolder, methods: Sequence[str] | None = None) -> None:
    """Writes summary and report from the saved rows, and prints the tables."""
    config: BenchConfig = folder.config()
    rows = folder.rows()
    with_rows = {row.method for row in rows}
    known = list(dict.fromkeys([*config["methods"], *(row.method for row in rows)]))
    for name in methods or ():
        if name not in known:
            raise BenchmarkError(f"{folder.path} has no rows of {name!r}; expected any of {', '.join(known)}")
    chosen = list(methods or [name for name in known if name in with_rows])
    page = write_report(folder, config, rows, chosen)
    if page is None:
        say(f"no problem is finished by every method yet ({', '.join(chosen) or 'no rows'})")
        return
    print_summary(folder)
    say(f"report: {page}")


def _compare_concurrencies(folders: Sequence[BenchFolder]) -> None:
    """Compares the throughput of folders side by side that differ in concurrency."""
    for path in dict.fromkeys(folder.path.parent for folder in folders):
        group = [
            folder
            for folder in folders
            if folder.path.parent == path and folder.path.name.startswith(_CONCURRENCY_FOLDER)
        ]
        if len(group) > 1:
            say(f"throughput: {write_throughput(group, path)}")
