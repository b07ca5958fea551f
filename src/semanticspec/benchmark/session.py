"""One benchmark from options to report: what is checked when, what is saved when."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semanticspec.benchmark.folder import (
    CONFIG_FILE,
    FORMAT,
    BenchFolder,
    describe_machine,
    describe_method,
    describe_pair,
    describe_versions,
)
from semanticspec.benchmark.grading import Grader, check_grading, make_grader
from semanticspec.benchmark.methods import Method, check_names, make_method, split_name, with_strictness
from semanticspec.benchmark.options import BenchOptions
from semanticspec.benchmark.report import check_plotting, compare_throughput, print_summary, write_report
from semanticspec.benchmark.rows import Row
from semanticspec.benchmark.runner import Setting, control, pilot, run
from semanticspec.benchmark.summary import BASELINES
from semanticspec.benchmark.tasks import (
    PILOT_PROBLEMS,
    BenchProblem,
    Task,
    find_task,
    read_problems,
    read_task,
)
from semanticspec.config import RuleConfig
from semanticspec.errors import BenchmarkError, ConfigError
from semanticspec.output.progress import progress_bar, say

if TYPE_CHECKING:
    from semanticspec.decoding.pair import Pair

_AT_ONCE = "concurrency-"


def run_bench(options: BenchOptions) -> None:
    """Runs every task into its folder: `out` itself, or a folder in it for each of several tasks or concurrencies.

    Raises:
        SemanticSpecError: something does not fit, as far as can be told before any model is loaded.
    """
    check_names(options.methods)
    if not any(name in BASELINES for name in options.methods):
        raise ConfigError(
            f"there is nothing to compare with: add {' or '.join(BASELINES)} to --methods (speed-up is measured "
            "against the faster of them)"
        )
    tasks = [find_task(name) for name in options.tasks]
    if len(tasks) > 1 and (options.data or options.pilot_data):
        raise ConfigError("--data and --pilot-data are for one task; run the tasks one by one")
    check_plotting()
    jobs = [
        _Job(options, task, concurrency, _folder(options, task, concurrency))
        for task in tasks
        for concurrency in options.concurrency
    ]
    from semanticspec.loading import load_pair

    names = options.models
    pair = load_pair(
        names["target"],
        names["draft"],
        target_probe=names["target_probe"],
        draft_probe=names["draft_probe"],
        target_engine=options.engines["target"],
        draft_engine=options.engines["draft"],
        dtype=options.dtype,
        target_device=options.devices["target"],
        draft_device=options.devices["draft"],
    )
    try:
        for job in jobs:
            with job.folder.locked():
                job.run(pair)
    finally:
        asyncio.run(pair.aclose())
    _compare_concurrencies([job.folder for job in jobs])


def remake_report(path: Path, methods: Sequence[str] | None) -> None:
    """Writes summary and report again from the rows, for each task in the folder, and prints the table."""
    check_plotting()
    found = [BenchFolder(path)]
    if not found[0].exists:
        found = [BenchFolder(file.parent) for file in sorted(path.glob(f"*/**/{CONFIG_FILE}"))] or found
    for folder in found:
        _conclude(folder, methods)
    _compare_concurrencies(found)


def join(paths: Sequence[Path], out: Path) -> None:
    """Makes one benchmark of several that shared its problems, with its report.

    Raises:
        BenchmarkError: they differ in more than problems and methods, or `out` holds a benchmark already.
    """
    check_plotting()
    folder = BenchFolder(out)
    with folder.locked():
        folder.join([BenchFolder(path) for path in paths])
    _conclude(folder, None)


def _compare_concurrencies(folders: Sequence[BenchFolder]) -> None:
    """One picture for each set of folders that lie side by side because of their concurrencies."""
    for path in dict.fromkeys(folder.path.parent for folder in folders):
        beside = [
            folder
            for folder in folders
            if folder.path.parent == path and folder.path.name.startswith(_AT_ONCE)
        ]
        if len(beside) > 1:
            say(f"throughput: {compare_throughput(beside, path)}")


def _described(devices: Mapping[str, str]) -> str:
    """Both devices in one word where they are the same."""
    return ", ".join(dict.fromkeys(devices.values()))


def _folder(options: BenchOptions, task: Task, concurrency: int) -> Path:
    path = options.out
    if len(options.tasks) > 1:
        path /= task.name
    return path / f"{_AT_ONCE}{concurrency}" if len(options.concurrency) > 1 else path


class _Job:
    """One task at one concurrency, in one folder. What can be checked without the models is checked when it is made."""

    def __init__(self, options: BenchOptions, task: Task, concurrency: int, path: Path) -> None:
        self.options, self.task, self.concurrency = options, task, concurrency
        self.folder = BenchFolder(path)
        check_grading(task.graded_by)
        seed = options.config.seed
        self.problems, self.pilot = read_task(task, options.data, options.num_problems, seed)
        if options.skip >= len(self.problems):
            raise ConfigError(
                f"--skip {options.skip} leaves none of the {len(self.problems)} problems of {task.name}; skip fewer"
            )
        self.asked = self.problems[options.skip :]
        if options.pilot_data is not None:
            self.pilot = read_problems(task, options.pilot_data, seed)[:PILOT_PROBLEMS]
        self._check_pilot()
        self.shared: dict[str, Any] = {
            "format": FORMAT,
            "task": task.name,
            "data": options.data or ("grammar" if task.source is None else task.source.repo),
            "pair_name": options.pair_name,
            "seed": seed,
            "options_seed": seed if task.graded_by == "letter" else None,
            "engines": options.engines,
            "dtype": options.dtype,
            "device": _described(options.devices),
            "decoding": asdict(options.config),
            "concurrency": concurrency,
        }
        self.folder.check(self.shared, {})
        self.rows = self.folder.rows()
        self.folder.check_rows(self.rows, self.problems)

    def run(self, pair: Pair) -> None:
        """Measures what is missing; ends with summary and report, also when stopped."""
        options = self.options
        self.shared |= {
            "pair": describe_pair(pair),
            "machine": describe_machine(options.devices["target"]),
            "versions": describe_versions(),
        }
        self.folder.check(self.shared, {})
        grader = make_grader(self.task.graded_by)
        try:
            self._warn_of_golds(grader)
            setting = Setting(self.task.name, pair, grader, options.config.seed)
            methods = self._methods(setting)
            described = {method.name: describe_method(method) for method in methods}
            self.folder.check(self.shared, described)
            self.folder.save_config(
                self.shared,
                described,
                problems=len({p.problem_id for p in self.asked} | {row.problem_id for row in self.rows}),
                samples=options.samples,
                pilots=self._pilots,
                command=shlex.join(["semanticspec", *sys.argv[1:]]),
            )
            self._measure(setting, methods)
        except KeyboardInterrupt:
            say("stopped; what is done is kept, the same command goes on")
            if self.folder.exists:
                _conclude(self.folder, None)
            raise
        finally:
            grader.close()
        _conclude(self.folder, None)

    def _measure(self, setting: Setting, methods: Sequence[Method]) -> None:
        options = self.options
        done = {row.key for row in self.rows}

        def keys(problems: Sequence[BenchProblem]) -> set[tuple[str, str, int, str]]:
            return {
                (self.task.name, problem.problem_id, sample, method.name)
                for problem in problems
                for sample in range(options.samples)
                for method in methods
            }

        wanted = keys(self.asked)
        there = len(wanted & done)
        if there:
            say(f"{there} of {len(wanted)} answers were there")
        with progress_bar(self.task.name, quiet=options.quiet) as (progress, on_total):
            on_total(len(wanted) - there)
            extent = {"samples": options.samples, "concurrency": self.concurrency}
            left_out = keys(self.problems[: options.skip])
            for row in run(setting, self.problems, methods, **extent, done=done | left_out):
                self.folder.append(row)
                progress(_line(row))

    def _methods(self, setting: Setting) -> list[Method]:
        """All methods; those of a random control from its pilot, or from the pilot of the run before."""
        config, self._pilots = self.options.config, dict[str, Any]()
        saved = self.folder.config() if self.folder.exists else {}
        methods: list[Method] = []
        for name in self.options.methods:
            base, strictness = split_name(name)
            if base != "random":
                methods.append(make_method(name, setting.pair, config))
                continue
            own = with_strictness(config, strictness)
            self._pilots[name] = [problem.problem_id for problem in self.pilot]
            if saved.get("pilots", {}).get(name, self._pilots[name]) != self._pilots[name]:
                raise BenchmarkError(
                    f"{self.folder.path} has {name} from a pilot on other problems; give the same --pilot-data, or "
                    "another --out (the rows there are kept)"
                )
            rule = _saved_rule(saved, name) or self._run_pilot(setting, name, own)
            methods.append(control(name, setting.pair, own, rule))
        self._pilots = saved.get("pilots", {}) | self._pilots
        return methods

    def _run_pilot(self, setting: Setting, name: str, config: Any) -> RuleConfig:
        with progress_bar(f"pilot of {name}") as (progress, on_total):
            on_total(len(self.pilot))
            return pilot(setting, config, self.pilot, lambda: progress(""))

    def _check_pilot(self) -> None:
        """Raises ConfigError where the random control has too few other problems to take its rate from."""
        if not any(split_name(name)[0] == "random" for name in self.options.methods):
            return
        compared = {problem.prompt for problem in self.problems}
        others = [problem for problem in self.pilot if problem.prompt not in compared]
        if len(others) < PILOT_PROBLEMS:
            most = len(self.problems) + len(others) - PILOT_PROBLEMS
            fewer = f"use -n {most} or fewer, " if most > 0 and self.options.pilot_data is None else ""
            raise ConfigError(
                f"the random control needs a pilot of {PILOT_PROBLEMS} problems that are not compared, and there are "
                f"{len(others)}; {fewer}give others with --pilot-data, or leave random out"
            )
        self.pilot = others

    def _warn_of_golds(self, grader: Grader) -> None:
        """Says which gold answers the grader does not take for right themselves: no method can get these right."""
        if self.task.graded_by == "demo":
            return
        unread = [p.problem_id for p in self.problems if not _accepts_gold(grader, p)]
        if unread:
            listed = ", ".join(unread[:5]) + (" ..." if len(unread) > 5 else "")
            say(
                f"warning: math-verify cannot read {len(unread)} gold answers, which no answer will match: {listed}"
            )


def _accepts_gold(grader: Grader, problem: BenchProblem) -> bool:
    return grader.grade(f"\\boxed{{{problem.gold}}}", problem.gold, truncated=False).right


def _saved_rule(saved: dict[str, Any], name: str) -> RuleConfig | None:
    """The random control's rule of the run before."""
    config = saved.get("methods", {}).get(name, {}).get("config")
    if config is None:
        return None
    rates = tuple((int(length), float(rate)) for length, rate in config["rule"]["accept_rate_by_length"])
    return replace(RuleConfig(), **config["rule"] | {"accept_rate_by_length": rates})


def _conclude(folder: BenchFolder, methods: Sequence[str] | None) -> None:
    """Summary, report and table from what is on the disk."""
    config, rows = folder.config(), folder.rows()
    there = list(dict.fromkeys([*config["methods"], *(row.method for row in rows)]))
    for name in methods or ():
        if name not in there:
            raise BenchmarkError(f"{folder.path} has no rows of {name!r}; it has {', '.join(there)}")
    chosen = list(methods) if methods else [name for name in there if any(row.method == name for row in rows)]
    page = write_report(folder, config, rows, chosen)
    if page is None:
        say(f"no problem is finished by every method yet ({', '.join(chosen) or 'no rows'})")
        return
    print_summary(folder)
    say(f"report: {page}")


def _line(row: Row) -> str:
    state = "failed" if row.failed else "right" if row.right else "wrong"
    return f"{row.problem_id} {row.method} {state}, {row.num_tokens} tokens in {row.wall_s:.1f} s"
