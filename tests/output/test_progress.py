"""What a long command shows where there is no terminal."""

from semanticspec.output import progress


def test_without_a_terminal_progress_is_a_line_a_minute(monkeypatch, capsys):
    now = iter([0.0, 30.0, 70.0, 100.0, 140.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with progress.progress_bar("collecting") as (advance, on_total):
        on_total(8)
        for number in range(1, 5):
            advance(f"problem {number}")
    assert capsys.readouterr().err.splitlines() == [
        "collecting: 2 of 8, about 4 min left; problem 2",
        "collecting: 4 of 8, about 2 min left; problem 4",
    ]


def test_lines_of_an_unknown_total_and_of_a_quiet_command(monkeypatch, capsys):
    for quiet, expected in ((False, ["solving: 1"]), (True, [])):
        now = iter([0.0, 61.0])
        monkeypatch.setattr(progress.time, "monotonic", lambda now=now: next(now))
        with progress.progress_bar("solving", quiet=quiet) as (advance, _):
            advance("")
        assert capsys.readouterr().err.splitlines() == expected
