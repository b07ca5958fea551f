"""Makes problems: draws a story, tells it in words and solves it step by step."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, replace
from typing import Literal

from semanticspec.demo.meanings import LARGEST_NUMBER, Meaning, Operation, Problem
from semanticspec.demo.wordings import (
    COMPARISONS,
    CONTAINERS,
    EVENT_OPENINGS,
    EVENT_WORDINGS,
    FOODS,
    GAIN_VERBS,
    INTROS,
    ITEMS,
    LOSE_VERBS,
    NAMES,
    QUESTIONS,
)

Split = Literal["train", "validation", "test"]
# Hash buckets out of 20 that belong to each split.
SPLIT_BUCKETS: dict[Split, range] = {
    "train": range(0, 14),
    "validation": range(14, 17),
    "test": range(17, 20),
}
MIN_STEPS, MAX_STEPS = 2, 8  # a solution may close with one step more than its problem has
# How many events are drawn, by number of people and position of the person.
_NUM_EVENTS = {(1, 0): (1, 2, 3, 3, 4, 4, 5), (2, 0): (1, 1, 2, 2, 3), (2, 1): (0, 0, 1, 1, 2)}
# A count never leaves this range inside a story; 1 is left out because of "1 pens".
SMALLEST_COUNT = 2


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens to `who`: `kind` as in `EVENT_WORDINGS`, numbers 0 where unused."""

    kind: str
    who: str
    amount: int = 0
    times: int = 0
    verb: str = ""


@dataclass(frozen=True, slots=True)
class Story:
    """What a problem tells, before any wording.

    The people are told of one after the other, and the solution follows.

    Attributes:
        item: The counted noun.
        people: One or two names, in order of appearance.
        starts: `starts[0]` is a count; `starts[1]` a count or what `comparison` needs ("5 more": 5).
        comparison: How the second person's start is told; "start" if it stands on its own. Others compare with
            what the first person has by then.
        events: What happens, in order; all of the first person's come first.
        question: "final" (the last person's count), "total" or "difference".
        asked: The person the question names first.
    """

    item: str
    people: tuple[str, ...]
    starts: tuple[int, ...]
    comparison: Operation
    events: tuple[Event, ...]
    question: Literal["final", "total", "difference"]
    asked: str


def make_problem(rng: random.Random) -> Problem:
    """Draws a random problem; equal generator states give equal problems."""
    while True:
        story = _draw_story(rng)
        solved = solve(story)
        if solved is not None:
            return replace(solved, text=tell(story, rng))


def split_of(text: str) -> Split:
    """Names the split a problem text belongs to, by a stable hash: no text can be in two of them."""
    bucket = hashlib.sha256(text.encode()).digest()[0] % 20
    return next(split for split, buckets in SPLIT_BUCKETS.items() if bucket in buckets)


def problems(split: Split, count: int, seed: int = 0) -> list[Problem]:
    """Draws `count` different problems of a split, the same ones for the same seed.

    Raises:
        ValueError: If the split's name is unknown.
    """
    if split not in SPLIT_BUCKETS:
        raise ValueError(f"unknown split {split!r}; expected one of {sorted(SPLIT_BUCKETS)}")
    rng = random.Random(f"{split}-{seed}")
    found: dict[str, Problem] = {}
    while len(found) < count:
        problem = make_problem(rng)
        if split_of(problem.text) == split:
            found.setdefault(problem.text, problem)
    return list(found.values())


# --- drawing -----------------------------------------------------------------------------------------------


def _draw_story(rng: random.Random) -> Story:
    people = tuple(rng.sample(NAMES, 2 if rng.random() < 0.45 else 1))
    item = rng.choice(ITEMS)
    limit = 99 if rng.random() < 0.65 else 199
    starts: list[int] = []
    counts: dict[str, int] = {}
    events: list[Event] = []
    comparison: Operation = "start"
    for position, who in enumerate(people):
        if position:
            comparison = rng.choice(("start", "start", "more", "fewer", "twice"))
        starts.append(2 if comparison == "twice" else rng.randint(3, 60))
        counts[who] = _compare(comparison, counts.get(people[0], 0), starts[-1])
        for _ in range(rng.choice(_NUM_EVENTS[len(people), position])):
            if counts[who] < SMALLEST_COUNT:
                break
            events.append(_draw_event(rng, who, item, counts[who], limit))
            counts[who] = _change(events[-1], counts[who])
    question: Literal["final", "total", "difference"] = "final"
    if len(people) == 2:
        question = rng.choice(("final", "total", "total", "difference"))
    asked = people[-1]
    if question == "total":
        asked = people[0]
    elif question == "difference":
        asked = max(people, key=lambda name: counts[name])
    return Story(item, people, tuple(starts), comparison, tuple(events), question, asked)


def _draw_event(rng: random.Random, who: str, item: str, has: int, limit: int) -> Event:
    """Draws an event that mostly keeps the count between `SMALLEST_COUNT` and `limit`; `solve` checks."""
    kinds = ["gain", "gain", "gift"]
    if has <= limit - 10:
        kinds += ["bags"]
    if has >= 6:
        kinds += ["lose", "lose", "give", "share"]
    if 2 <= has <= limit // 2:
        kinds += ["double", "double"]
    if has % 2 == 0 and has >= 8:
        kinds += ["halve", "halve"]
    kind = rng.choice(kinds)
    times = rng.randint(2, 5)
    match kind:
        case "gain" | "gift":
            verb = rng.choice(tuple(GAIN_VERBS)) if kind == "gain" else "gets"
            return Event(kind, who, rng.randint(2, max(2, min(50, limit - has))), verb=verb)
        case "lose" | "give":
            verbs = [verb for verb in LOSE_VERBS if verb != "eats" or item in FOODS]
            verb = rng.choice(verbs) if kind == "lose" else "gives away"
            return Event(kind, who, rng.randint(2, min(has - 2, 60)), verb=verb)
        case "bags":
            return Event(kind, who, rng.randint(2, 20), times, rng.choice(CONTAINERS))
        case "share":
            return Event(kind, who, rng.randint(2, 12), times, "friends")
        case _:
            return Event(kind, who)


# --- solving -----------------------------------------------------------------------------------------------


def _compare(comparison: Operation, base: int, value: int) -> int:
    match comparison:
        case "more":
            return base + value
        case "fewer":
            return base - value
        case "twice":
            return base * value
        case _:
            return value


def _change(event: Event, has: int) -> int:
    """Returns the new count of the person an event is about."""
    match event.kind:
        case "gain" | "gift":
            return has + event.amount
        case "double":
            return has * 2
        case "halve":
            return has // 2
        case "bags":
            return has + event.times * event.amount
        case "share":
            return has - event.times * event.amount
        case _:
            return has - event.amount


def solve(story: Story) -> Problem | None:
    """Works a story out step by step; None if it breaks the grammar's bounds. The text is left empty.

    With two people, the first one's part closes with the count, so that it is at hand at the end.
    """
    steps: list[tuple[Meaning, str]] = []
    counts: dict[str, int] = {}
    for position, who in enumerate(story.people):
        steps.append((_starting_step(story, position, counts), ""))
        counts[who] = steps[-1][0].result
        for event in story.events:
            if event.who == who:
                steps += _event_steps(event, story.item, counts[who])
                counts[who] = steps[-1][0].result
        if position < len(story.people) - 1:
            steps.append((closing_step(who, story.item, counts[who]), ""))
    if story.question != "final":
        steps.append((_last_step(story, counts), ""))
    meanings = tuple(step for step, _ in steps)
    odd = any(step.operation == "halve" and step.operands[0] % 2 for step in meanings)
    numbers = [number for step in meanings for number in (*step.operands, step.result)]
    if (
        odd
        or not MIN_STEPS <= len(steps) < MAX_STEPS
        or min(numbers) < SMALLEST_COUNT
        or max(numbers) > LARGEST_NUMBER
    ):
        return None
    return Problem("", meanings[-1].result, meanings, tuple(verb for _, verb in steps))


def closing_step(who: str, item: str, count: int) -> Meaning:
    """Returns the step that says a count once more."""
    return Meaning("final", (count,), count, who, item)


def _starting_step(story: Story, position: int, counts: dict[str, int]) -> Meaning:
    who, value = story.people[position], story.starts[position]
    if position == 0 or story.comparison == "start":
        return Meaning("start", (value,), value, who, story.item)
    base = counts[story.people[0]]
    result = _compare(story.comparison, base, value)
    return Meaning(story.comparison, (base, value), result, who, story.item, story.people[0])


def _event_steps(event: Event, item: str, has: int) -> list[tuple[Meaning, str]]:
    """Returns the one or two steps of an event, each with the story's word for it."""
    who, gets = event.who, _change(event, has)
    all_units = event.times * event.amount
    product = Meaning("product", (event.times, event.amount), all_units, who, item, unit=event.verb)
    match event.kind:
        case "gain" | "gift":
            return [(Meaning("gain", (has, event.amount), gets, who, item), event.verb)]
        case "double":
            return [(Meaning("double", (has, 2), gets, who, item), "")]
        case "halve":
            return [(Meaning("halve", (has, 2), gets, who, item), "")]
        case "bags":
            return [(product, ""), (Meaning("gain", (has, all_units), gets, who, item), "buys")]
        case "share":
            return [(product, ""), (Meaning("lose", (has, all_units), gets, who, item), "gives away")]
        case _:
            return [(Meaning("lose", (has, event.amount), gets, who, item), event.verb)]


def _last_step(story: Story, counts: dict[str, int]) -> Meaning:
    who = story.asked
    other = next(name for name in story.people if name != who)
    operands = (counts[who], counts[other])
    result = sum(operands) if story.question == "total" else operands[0] - operands[1]
    operation: Operation = "total" if story.question == "total" else "difference"
    return Meaning(operation, operands, result, who, story.item, other)


# --- telling -----------------------------------------------------------------------------------------------


def tell(story: Story, rng: random.Random) -> str:
    """Words a story and its question, with random wordings."""
    sentences: list[str] = []
    for position, who in enumerate(story.people):
        sentences.append(_tell_start(story, position, rng))
        for number, event in enumerate(event for event in story.events if event.who == who):
            sentences.append(_tell_event(event, story.item, bool(number), rng))
    other = next((name for name in story.people if name != story.asked), "")
    question = rng.choice(QUESTIONS[story.question])
    sentences.append(question.format(items=story.item, who=story.asked, other=other))
    return " ".join(sentences)


def _tell_start(story: Story, position: int, rng: random.Random) -> str:
    value = story.starts[position]
    if position == 0 or story.comparison == "start":
        return rng.choice(INTROS).format(who=story.people[position], a=value, items=story.item)
    wording = rng.choice(COMPARISONS[story.comparison])
    return wording.format(who=story.people[0], other=story.people[1], b=value, items=story.item)


def _tell_event(event: Event, item: str, follows: bool, rng: random.Random) -> str:
    opening = rng.choice(EVENT_OPENINGS) if follows else ""
    wording = rng.choice(EVENT_WORDINGS[event.kind])
    return opening + wording.format(
        who=event.who, b=event.amount, k=event.times, unit=event.verb, verb=event.verb, items=item
    )
