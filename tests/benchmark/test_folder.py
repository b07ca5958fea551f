"""Results folders: what is saved, what is refused, what is joined, and that published ones can be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from semanticspec.benchmark.folder import BenchFolder
from semanticspec.benchmark.rows import Row
from semanticspec.benchmark.tasks import BenchProblem
from semanticspec.errors import BenchmarkError
from tests.support.benchmarks import make_folder, make_row

RESULTS = Path(__file__).parents[2] / "docs/results"


def test_rows_and_configuration_are_read_back(tmp_path):
    rows = [make_row("p"), make_row("q")]
    folder = make_folder(tmp_path, rows)
    assert folder.rows() == rows
    assert folder.config()["run"]["task"] == "t"
    assert list(folder.config()["methods"]) == ["target"]


def test_the_first_of_two_rows_of_a_request_counts_and_a_row_that_was_cut_off_does_not(tmp_path):
    folder = make_folder(tmp_path, [make_row("p"), make_row("p", right=False)])
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"task": "t", "problem_id"')
    assert folder.rows() == [make_row("p")]
    folder.append(make_row("q"))
    assert [row.problem_id for row in folder.rows()] == ["p", "q"]


def test_a_broken_row_is_named_with_file_and_line(tmp_path):
    folder = make_folder(tmp_path, [make_row("p")])
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"task": "t"}\n')
    with pytest.raises(BenchmarkError, match=r"rows\.jsonl, line 2: .*is missing.*delete this line"):
        folder.rows()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"speed": 1}, "config.json: unknown key speed"),
        (
            {"methods": {"target": {"lossy": "perhaps"}}},
            "methods.target.lossy is 'perhaps'; expected a valid boolean",
        ),
        ({"run": {}}, "run.format is missing"),
    ],
)
def test_a_broken_configuration_is_refused_in_one_line(changes, message, tmp_path):
    folder = make_folder(tmp_path, [])
    config = json.loads((tmp_path / "config.json").read_text()) | changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BenchmarkError) as error:
        folder.config()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_that_is_not_a_benchmark_is_refused(tmp_path):
    with pytest.raises(BenchmarkError, match="is not a results folder"):
        BenchFolder(tmp_path).config()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(BenchmarkError, match="not valid JSON"):
        BenchFolder(tmp_path).config()
    (tmp_path / "config.json").unlink()
    (tmp_path / "rows.jsonl").write_text("")
    with pytest.raises(BenchmarkError, match=r"has rows\.jsonl but no config\.json"):
        BenchFolder(tmp_path).check({}, {})


def test_differences_are_named_and_what_only_one_side_has_is_no_difference(tmp_path):
    folder = make_folder(tmp_path, [])
    folder.check({"seed": 0, "versions": {"torch": "2"}}, {"draft": {"lossy": True}})
    with pytest.raises(
        BenchmarkError, match="seed is 0 in the folder and 1 in this run; target: lossy is false"
    ):
        folder.check({"seed": 1}, {"target": {"lossy": True}})


def test_methods_of_earlier_runs_stay_in_the_configuration(tmp_path):
    folder = make_folder(tmp_path, [])
    config = folder.config()
    extent = {name: config[name] for name in ("problems", "samples", "pilots", "command")}
    folder.save_config(config["run"], {"draft": {"lossy": True}}, **extent)
    assert list(folder.config()["methods"]) == ["target", "draft"]


def test_rows_of_other_problems_are_refused(tmp_path):
    problem = BenchProblem("p", "How many?", "1")
    folder = make_folder(tmp_path, [make_row("p", digest=problem.digest)])
    folder.check_rows(folder.rows(), [problem])
    with pytest.raises(BenchmarkError, match="another problem 'p'"):
        folder.check_rows(folder.rows(), [BenchProblem("p", "How much?", "1")])


def test_parts_are_joined_and_other_benchmarks_are_not(tmp_path):
    first, second = (
        make_folder(tmp_path / "first", [make_row("p")]),
        make_folder(tmp_path / "second", [make_row("q")]),
    )
    both = BenchFolder(tmp_path / "both")
    with both.locked():
        both.join([first, second])
    assert {row.problem_id for row in both.rows()} == {"p", "q"}
    assert both.config()["problems"] == 2
    other = make_folder(tmp_path / "other", [make_row("r")], seed=1)
    with pytest.raises(BenchmarkError, match="another configuration"):
        BenchFolder(tmp_path / "new").join([first, other])
    with pytest.raises(BenchmarkError, match="already holds results"):
        other.join([first])
    with pytest.raises(BenchmarkError, match="is not a results folder"):
        BenchFolder(tmp_path / "new").join([BenchFolder(tmp_path / "nothing")])
    assert not (tmp_path / "new").exists()


def test_two_processes_do_not_write_to_one_folder(tmp_path):
    with (
        BenchFolder(tmp_path).locked(),
        pytest.raises(BenchmarkError, match="another process"),
        BenchFolder(tmp_path).locked(),
    ):
        pass
    with BenchFolder(tmp_path).locked():
        pass


def test_published_rows_are_read():
    files = sorted(RESULTS.glob("**/rows*.jsonl"))
    assert len(files) >= 5
    for file in files:
        rows = [Row.from_json(json.loads(line), str(file)) for line in file.read_text().splitlines()]
        assert rows
        assert [json.dumps(row.to_json()) for row in rows] == [
            json.dumps({**row.to_json(), **json.loads(line)})
            for row, line in zip(rows, file.read_text().splitlines(), strict=True)
        ]


def test_published_configurations_are_read():
    files = sorted(RESULTS.glob("**/config.json"))
    assert files
    for file in files:
        config = BenchFolder(file.parent).config()
        assert config == json.loads(file.read_text())
