"""Under load, requests take the way that gives more tokens a second together."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import pytest

from semanticspec.decoding.load import Load

Rate = Callable[[int], float]
PIECE = {True: 6, False: 1}
"""Tokens that a request reports at a time, by whether it speculates."""


class Machine:
    """Runs requests at known throughputs, in tokens per second by their number."""

    def __init__(self, speculating: Rate, alone: Rate) -> None:
        self.now = 0.0
        self.load = Load(lambda: self.now)
        self.rates = {True: speculating, False: alone}

    def run(self, num_requests: int, num_tokens: int) -> float:
        """Returns the throughput of so many requests that write so many tokens each."""
        start, written = self.now, 0
        with ExitStack() as running:
            for _ in range(num_requests):
                running.enter_context(self.load.request())
            while written < num_requests * num_tokens:
                way = self.load.speculates()
                written += PIECE[way]
                self.now += PIECE[way] / self.rates[way](num_requests)
                self.load.report(PIECE[way])
        return written / (self.now - start)


def batched(one: float) -> Rate:
    return lambda count: one * count / (1 + 0.08 * (count - 1))


def separate(one: float) -> Rate:
    return lambda count: one * min(1.3, count**0.3)


@pytest.mark.parametrize("order", [(1, 2, 4, 8, 16), (16, 8, 4, 2, 1), (8,), (3, 12)])
@pytest.mark.parametrize(
    ("speculating", "alone"),
    [(separate(28), batched(11)), (separate(14), batched(11)), (batched(25), batched(11))],
)
def test_throughput_is_that_of_the_better_way(order: tuple[int, ...], speculating: Rate, alone: Rate) -> None:
    machine = Machine(speculating, alone)
    for num_requests in order:
        rate = machine.run(num_requests, 400)
        best = max(speculating(num_requests), alone(num_requests)) if num_requests > 1 else speculating(1)
        assert rate > 0.93 * best, num_requests
        assert rate > 0.95 * min(best, alone(num_requests)), num_requests


def test_one_request_always_may_speculate() -> None:
    machine = Machine(separate(5), batched(11))
    assert machine.run(1, 200) == pytest.approx(5)


def test_a_way_that_became_better_is_found() -> None:
    machine = Machine(separate(30), batched(11))
    machine.run(4, 400)
    machine.rates[True] = batched(30)
    assert machine.run(4, 8000) > 0.9 * batched(30)(4)


def test_requests_are_counted_while_they_run() -> None:
    load = Load(lambda: 0.0)
    with pytest.raises(RuntimeError), load.request():
        raise RuntimeError
    with load.request():
        assert load.speculates()
