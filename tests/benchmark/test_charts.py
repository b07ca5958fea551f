"""Pictures of a report: what they show."""

from __future__ import annotations

from semanticspec.benchmark.charts import acceptance_by_position
from semanticspec.records import Segment
from tests.support.benchmarks import make_row


def test_acceptance_by_position_leaves_rejected_text_out():
    segments = (
        Segment("draft", "", 50, accepted=True),
        Segment("draft", "", 90, accepted=False),
        Segment("target", "", 50),
    )
    bins = acceptance_by_position([make_row("p", num_tokens=100, segments=segments)])
    assert [(accepted, judged) for _, accepted, judged in bins if judged] == [(1, 1), (0, 1)]
    assert bins[5][1:] == (0, 1)
