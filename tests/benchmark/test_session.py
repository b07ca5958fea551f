"""A benchmark from options to report: what resumes, what is refused, what is joined."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from semanticspec.benchmark import runner, session
from semanticspec.benchmark.tasks import TASKS
from semanticspec.commands.main import app
from semanticspec.errors import BenchmarkError, ConfigError, SemanticSpecError
from tests.support.benchmarks import MATH_ROWS, write_rows


def bench(out: Path, *arguments: str) -> None:
    """Runs the command; its errors come through."""
    usual = ["--max-new-tokens", "24", "--quiet"]
    done = CliRunner().invoke(app, ["bench", "--out", str(out), *usual, *arguments], catch_exceptions=True)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception


def rows_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A small run, to be read only."""
    out = tmp_path_factory.mktemp("bench") / "out"
    bench(
        out,
        "--pair",
        "demo",
        "--task",
        "demo",
        "--methods",
        "target,draft,top-k",
        "-n",
        "3",
        "--samples",
        "2",
    )
    return out


def test_a_run_leaves_rows_summary_configuration_and_report(finished):
    rows = rows_of(finished)
    assert len(rows) == 3 * 3 * 2
    assert {(row["method"], row["problem_id"], row["sample"]) for row in rows}.__len__() == 18
    summary = json.loads((finished / "summary.json").read_text())
    assert (summary["task"], summary["pair"], summary["problems"]) == ("demo", "bundled", 3)
    wanted = {
        "accuracy",
        "accuracy_ci95",
        "accuracy_diff_ci95",
        "tokens",
        "wall_s",
        "speedup",
        "speedup_ci95",
        "seconds_per_token",
        "length_ratio",
        "truncated_share",
        "draft_token_share",
        "segment_acceptance_rate",
        "overhead_share",
    }
    assert all(wanted <= figures.keys() for figures in summary["methods"].values())
    assert list(summary["methods"]) == ["target", "draft", "top-k"]
    assert summary["methods"]["target"]["wall_s"] == pytest.approx(
        sum(row["wall_s"] for row in rows if row["method"] == "target")
    )
    config = json.loads((finished / "config.json").read_text())
    assert config["methods"]["top-k"]["config"]["rule"]["name"] == "top-k"
    assert {"machine", "versions", "pair", "decoding", "seed"} <= config["run"].keys()
    table = (finished / "table.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in table[2:]] == ["| `target`", "| `draft`", "| `top-k`"]
    assert [line.split(" | ")[1] for line in table[2:]] == ["", "lossy", "lossy"]
    assert len({line.count("|") for line in table}) == 1
    page = (finished / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "<script" not in page
    assert {path.stem for path in finished.glob("*.png")} >= {
        "accuracy_speedup",
        "time",
        "acceptance",
        "lengths",
    }


def test_the_report_is_remade_equal(finished):
    names = ["summary.json", "table.md", "report.html", "time.png", "lengths.png"]
    before = {name: (finished / name).read_bytes() for name in names}
    for name in names:
        (finished / name).unlink()
    done = CliRunner().invoke(app, ["bench", "report", str(finished)])
    assert done.exit_code == 0, done.output
    assert {name: (finished / name).read_bytes() for name in names} == before


@pytest.mark.slow
def test_a_killed_run_resumes(tmp_path):
    out = tmp_path / "out"
    bench(out, "--methods", "target,never", "-n", "3")
    whole = (out / "rows.jsonl").read_bytes().splitlines(keepends=True)
    assert len(whole) == 6
    (out / "rows.jsonl").write_bytes(b"".join(whole[:3]) + whole[3][:40])
    bench(out, "--methods", "target,never", "-n", "3")
    again = (out / "rows.jsonl").read_bytes().splitlines(keepends=True)
    assert again[:3] == whole[:3]
    assert len(again) == 6
    texts = [
        {(r["problem_id"], r["method"]): r["text"] for r in map(json.loads, lines)}
        for lines in (whole, again)
    ]
    assert texts[0] == texts[1]
    # More problems and another method are added to the same folder.
    bench(out, "--methods", "target,never,draft", "-n", "4")
    longer = rows_of(out)
    assert len(longer) == 12
    assert [json.dumps(r) for r in longer[:6]] == [json.dumps(json.loads(line)) for line in again]
    assert json.loads((out / "summary.json").read_text())["problems"] == 4


def test_ctrl_c_keeps_what_is_done_and_shows_it(tmp_path, monkeypatch):
    out = tmp_path / "out"

    def interrupted(*arguments, **options):
        for number, row in enumerate(runner.run(*arguments, **options)):
            if number == 3:
                raise KeyboardInterrupt
            yield row

    monkeypatch.setattr(session, "run", interrupted)
    bench(out, "--methods", "target,never", "-n", "3")
    assert len(rows_of(out)) == 3
    assert json.loads((out / "summary.json").read_text())["problems"] == 1


def test_a_folder_of_another_configuration_is_refused_and_its_rows_kept(finished):
    before = (finished / "rows.jsonl").read_bytes()
    with pytest.raises(
        BenchmarkError,
        match=r"another configuration: seed is 0 in the folder and 1 in this run|decoding\.seed",
    ):
        bench(finished, "--methods", "target", "-n", "3", "--seed", "1")
    with pytest.raises(
        BenchmarkError, match=r"decoding.sampling.temperature is 0.6 in the folder and 0.1 in this run"
    ):
        bench(finished, "--methods", "target", "-n", "3", "--temperature", "0.1")
    assert (finished / "rows.jsonl").read_bytes() == before


@pytest.mark.slow
def test_a_benchmark_shared_by_problems_is_joined_and_resumes(tmp_path):
    methods = ("--methods", "target,draft")
    whole, first, second, both = (tmp_path / name for name in ("whole", "first", "second", "both"))
    bench(whole, *methods, "-n", "3")
    bench(first, *methods, "-n", "1")
    bench(second, "--methods", "target,draft,never", "-n", "3", "--skip", "1")
    assert len(rows_of(second)) == 6
    done = CliRunner().invoke(app, ["bench", "join", str(first), str(second), "--out", str(both)])
    assert done.exit_code == 0, done.output

    def texts(out: Path) -> dict:
        rows = [row for row in rows_of(out) if row["method"] != "never"]
        return {(row["problem_id"], row["method"]): (row["text"], row["seed"], row["block"]) for row in rows}

    assert texts(both) == texts(whole)
    assert json.loads((both / "summary.json").read_text())["asked_problems"] == 3
    bench(both, "--methods", "target,draft,never", "-n", "3")
    assert len(rows_of(both)) == 9


@pytest.mark.slow
def test_a_sweep_has_a_control_and_a_pilot_for_each_strictness(tmp_path, monkeypatch):
    monkeypatch.setattr(session, "PILOT_PROBLEMS", 2)
    out = tmp_path / "out"
    bench(out, "--methods", "target", "--sweep", "strictness=0.5,4", "-n", "2")
    config = json.loads((out / "config.json").read_text())
    names = ["target", "semantic@0.5", "random@0.5", "semantic@4", "random@4"]
    assert list(config["methods"]) == names
    for name in names[1:]:
        assert config["methods"][name]["config"]["rule"]["strictness"] == float(name.partition("@")[2])
    assert config["methods"]["random@4"]["config"]["rule"]["accept_rate_by_length"]
    assert set(config["pilots"]) == {"random@0.5", "random@4"}
    assert (out / "sweep.png").is_file()
    # The pilots are not run again.
    monkeypatch.setattr(runner, "run_pilot", lambda *_: pytest.fail("the pilot is run again"))
    bench(out, "--methods", "target", "--sweep", "strictness=0.5,4", "-n", "3")
    assert json.loads((out / "summary.json").read_text())["problems"] == 3


@pytest.mark.slow
def test_several_tasks_get_a_folder_each(tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, "gsm8k", replace(TASKS["demo"], name="gsm8k"))
    bench(tmp_path, "--task", "demo,gsm8k", "--methods", "target", "-n", "1")
    assert json.loads((tmp_path / "gsm8k" / "summary.json").read_text())["task"] == "gsm8k"
    assert (tmp_path / "demo" / "report.html").is_file()
    assert CliRunner().invoke(app, ["bench", "report", str(tmp_path)]).exit_code == 0


@pytest.mark.slow
def test_math_problems_from_a_file_run_and_are_graded(tmp_path):
    data = write_rows(tmp_path / "p.jsonl", MATH_ROWS)
    out = tmp_path / "out"
    bench(out, "--task", "custom", "--data", data, "--methods", "target,always")
    rows = rows_of(out)
    assert len(rows) == 6
    assert {row["gold"] for row in rows} == {row["answer"] for row in MATH_ROWS}
    changed = write_rows(tmp_path / "p.jsonl", [MATH_ROWS[0] | {"answer": "1"}, *MATH_ROWS[1:]])
    with pytest.raises(BenchmarkError, match="another problem 'a'"):
        bench(out, "--task", "custom", "--data", changed, "--methods", "target,always")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "gsm9k"], "no task 'gsm9k'"),
        (["--methods", "target,magic"], "no method 'magic'"),
        (["--methods", "semantic"], "add target or hf-target"),
        (["--methods", ","], "--methods is empty"),
        (["--sweep", "strictness="], "--sweep is empty; expected"),
        (["--task", "custom", "--methods", "target"], "needs --data"),
        (["--task", "math500", "--data", "{data}", "--methods", "target,random"], "needs a pilot of 20"),
        (["--task", "math500", "--data", "{data}", "--methods", "target", "-n", "9"], "has 3 problems"),
        (["--task", "math500", "--data", "/no/such.jsonl", "--methods", "target"], "cannot read problems"),
        (["--data", "{data}"], "leave --data and --pilot-data out"),
        (["--task", "gsm8k,math500", "--data", "{data}"], "one task"),
        (["--pair", "nobody"], "no pair 'nobody'"),
        (["-n", "3", "--skip", "3"], "leaves none of the 3 problems"),
        (
            ["--methods", "target,random", "--pilot-data", "{data}"],
            "generates its own problems; leave --data and",
        ),
        (
            ["--methods", "target,semantic+default,semantic+token-speculation+partial-acceptance"],
            "given twice",
        ),
    ],
)
def test_bad_input_is_refused_before_a_model_is_loaded(arguments, message, tmp_path, monkeypatch):
    monkeypatch.setattr("semanticspec.loading.load_pair", lambda *_, **__: pytest.fail("a model is loaded"))
    data = write_rows(tmp_path / "p.jsonl", MATH_ROWS)
    with pytest.raises(SemanticSpecError, match=message):
        bench(tmp_path / "out", *(argument.replace("{data}", data) for argument in arguments))
    assert not (tmp_path / "out").exists()


def test_a_folder_without_results_is_refused(tmp_path):
    done = CliRunner().invoke(app, ["bench", "report", str(tmp_path)])
    assert isinstance(done.exception, BenchmarkError)
    assert "is not a results folder" in str(done.exception)
    with pytest.raises(ConfigError, match="--out is missing"):
        raise CliRunner().invoke(app, ["bench"]).exception


def test_each_concurrency_has_its_folder_and_one_picture_compares_them(tmp_path: Path) -> None:
    def bench(*more: str) -> str:
        methods = ["--methods", "target,always", "--max-new-tokens", "12", "--quiet"]
        done = CliRunner().invoke(app, ["bench", "--task", "demo", *methods, "--out", str(tmp_path), *more])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.output

    printed = bench("-n", "6", "--concurrency", "1,2")
    assert "2 concurrent requests" in printed
    assert (tmp_path / "throughput.png").stat().st_size > 1000
    rows = (tmp_path / "concurrency-2" / "rows.jsonl").read_text().splitlines()
    assert len(rows) == 12
    summary = json.loads((tmp_path / "concurrency-2" / "summary.json").read_text())
    assert summary["concurrency"] == 2
    always = summary["methods"]["always"]
    assert always["throughput_ratio"] > 1
    assert always["latency_s"]["p50"] <= always["latency_s"]["p99"]
    one = json.loads((tmp_path / "concurrency-1" / "summary.json").read_text())["methods"]["always"]
    assert "throughput_ratio" not in one
    table = [line.split(" | ") for line in (tmp_path / "throughput.md").read_text().splitlines()]
    assert [line[:2] for line in table[2:]] == [
        [f"| {at_once}", f"`{method}`"] for at_once in (1, 2) for method in ("target", "always")
    ]
    assert table[2][4] == "1"
    assert table[3][4].startswith(f"{one['speedup']:.2f} [")
    assert table[5][4] == f"{always['throughput_ratio']:.2f}"  # of one block: no interval
    assert one["requests_per_s"] == pytest.approx(one["requests"] / one["wall_s"], rel=0.05)
    (tmp_path / "throughput.png").unlink()
    (tmp_path / "throughput.md").unlink()
    done = CliRunner().invoke(app, ["bench", "report", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "throughput.png").exists()
    assert (tmp_path / "throughput.md").exists()
    with pytest.raises(BenchmarkError, match="concurrency is 2 in the folder and 3 in this run"):
        CliRunner().invoke(
            app,
            [
                "bench",
                "--task",
                "demo",
                "-n",
                "6",
                "--concurrency",
                "3",
                "--out",
                str(tmp_path / "concurrency-2"),
            ],
            catch_exceptions=False,
        )
