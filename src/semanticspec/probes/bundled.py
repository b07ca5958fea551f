"""Makes the bundled pair's probes anew, end to end: `python -m semanticspec.probes.bundled`.

Collects on problems of the demo's training and validation splits (never on test problems), labels them with
the grammar's exact meanings, trains both probes and writes them beside the models.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from semanticspec.probes.collect import CollectConfig, ProblemText
from semanticspec.probes.features import FEATURES
from semanticspec.probes.train import TrainConfig, train
from semanticspec.records import Author

NUM_PROBLEMS = 200
COLLECT = CollectConfig(num_samples=20, max_segment_tokens=96, max_trace_tokens=512, max_contexts=8)
"""Steps of the demo are shorter than 60 tokens, its solutions than 400."""

TRAIN: dict[Author, TrainConfig] = {
    "target": TrainConfig(widths=(256, 64), features=tuple(FEATURES)),
    "draft": TrainConfig(widths=(256, 64), features=tuple(FEATURES)),
}


def demo_problems(count: int) -> list[ProblemText]:
    """Problems of the demo, nine in ten of its training split, the others of its validation split."""
    from semanticspec.demo.grammar import problems

    from_validation = count // 10
    chosen = [
        *problems("train", count - from_validation, seed=1),
        *problems("validation", from_validation, seed=1),
    ]
    return [ProblemText(problem.text, problem.text) for problem in chosen]


def build(data: Path, out: Path, num_problems: int = NUM_PROBLEMS, concurrency: int = 4) -> None:
    """Collects into `data` (going on where it was stopped), labels, trains, writes both probes into `out`."""
    from semanticspec.probes.commands import load_models, run_collect, run_label
    from semanticspec.probes.metrics import summary

    start = time.perf_counter()
    collection = run_collect(load_models(None, None), demo_problems(num_problems), COLLECT, data, concurrency)
    run_label(collection, "exact")
    print(f"collected and labelled in {time.perf_counter() - start:.0f} s")
    for role, config in TRAIN.items():
        start = time.perf_counter()
        probe = train(collection, role, "exact", config)
        probe.save(out / f"{role}-probe")
        print(f"{role} probe trained in {time.perf_counter() - start:.0f} s: {summary(probe.card.metrics)}")


def main() -> None:
    """Parses the command line and builds."""
    from semanticspec import demo

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder for the collection")
    parser.add_argument(
        "--out", type=Path, default=demo.target_path().parent, help="default: beside the models"
    )
    parser.add_argument("--num-problems", type=int, default=NUM_PROBLEMS)
    parser.add_argument("--concurrency", type=int, default=4)
    arguments = parser.parse_args()
    build(arguments.data, arguments.out, arguments.num_problems, arguments.concurrency)


if __name__ == "__main__":
    main()
