"""Makes problems: draws a story, tells it in words and solves it step by step."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, replace
from typing import Literal

from semanticspec.demo.meanings import Meaning, Operation, Problem
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
    PAIR_INTROS,
    QUESTIONS,
)

Split = Literal["train", "validation", "test"]
# Hash buckets out of 20 that belong to each split.
SPLIT_BUCKETS: dict[Split, range] = {
    "train": range(0, 14),
    "validation": range(14, 17),
    "test": range(17, 20),
}
MIN_STEPS, MAX_STEPS = 2, 8
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
    other: str = ""


@dataclass(frozen=True, slots=True)
class Story:
    """What a problem tells, before any wording.

    Attributes:
        item: The counted noun.
        people: One or two names, in order of appearance.
        starts: `starts[0]` is a count; `starts[1]` a count or what `comparison` needs ("5 more": 5).
        comparison: How the second person's start is told; "start" if it stands on its own.
        events: What happens, in order.
        question: "final", "total" or "difference".
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
    people = tuple(rng.sample(NAMES, 2 if rng.random() < 0.55 else 1))
    item = rng.choice(ITEMS)
    counts = {people[0]: rng.randint(3, 60)}
    starts = [counts[people[0]]]
    comparison: Operation = "start"
    if len(people) == 2:
        comparison = rng.choice(("start", "start", "more", "fewer", "twice"))
        starts.append(2 if comparison == "twice" else rng.randint(2, 40))
        counts[people[1]] = _compare(comparison, starts[0], starts[1])
    num_events = rng.choice((1, 2, 2, 3, 3)) if len(people) == 2 else rng.choice((1, 2, 3, 3, 4, 4, 5))
    limit = 99 if rng.random() < 0.65 else 199
    events = []
    for _ in range(num_events):
        event = _draw_event(rng, people, item, counts, limit)
        for who, change in _changes(event, counts).items():
            counts[who] = change
        events.append(event)
    if rng.random() < 0.5:
        events.sort(key=lambda event: event.who != people[0])
    question: Literal["final", "total", "difference"] = "final"
    if len(people) == 2:
        question = rng.choice(("final", "total", "difference"))
    asked = max(people, key=lambda who: counts[who]) if question == "difference" else people[0]
    if question == "final":
        asked = rng.choice(people)
    return Story(item, people, tuple(starts), comparison, tuple(events), question, asked)


def _draw_event(
    rng: random.Random, people: tuple[str, ...], item: str, counts: dict[str, int], limit: int
) -> Event:
    """Draws an event that keeps every count between `SMALLEST_COUNT` and about `limit`."""
    who = rng.choice(people)
    other = next((name for name in people if name != who), "")
    has = counts[who]
    kinds = ["gain", "gain", "gift"]
    if has <= limit - 10:
        kinds += ["bags"]
    if has >= 6:
        kinds += ["lose", "lose", "lose", "share"]
    if 2 <= has <= limit // 2:
        kinds += ["double", "double"]
    if has % 2 == 0 and has >= 8:
        kinds += ["halve", "halve"]
    if other and has >= 6:
        kinds += ["transfer", "transfer"]
    kind = rng.choice(kinds)
    times = rng.randint(2, 5)
    match kind:
        case "gain" | "gift":
            verb = rng.choice(tuple(GAIN_VERBS)) if kind == "gain" else "gets"
            return Event(kind, who, rng.randint(2, max(2, min(50, limit - has))), verb=verb)
        case "lose" | "transfer":
            verbs = [verb for verb in LOSE_VERBS if verb != "eats" or item in FOODS]
            verb = rng.choice(verbs) if kind == "lose" else "gives away"
            return Event(
                kind,
                who,
                rng.randint(2, min(has - 2, 60)),
                verb=verb,
                other=other if kind == "transfer" else "",
            )
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


def _changes(event: Event, counts: dict[str, int]) -> dict[str, int]:
    """Returns the new counts of everybody an event touches."""
    has = counts[event.who]
    match event.kind:
        case "gain" | "gift":
            return {event.who: has + event.amount}
        case "lose":
            return {event.who: has - event.amount}
        case "double":
            return {event.who: has * 2}
        case "halve":
            return {event.who: has // 2}
        case "bags":
            return {event.who: has + event.times * event.amount}
        case "share":
            return {event.who: has - event.times * event.amount}
        case _:
            return {event.who: has - event.amount, event.other: counts[event.other] + event.amount}


def solve(story: Story) -> Problem | None:
    """Works a story out step by step; None if it breaks the grammar's bounds. The text is left empty."""
    item = story.item
    steps: list[tuple[Meaning, str]] = []
    counts: dict[str, int] = {}
    for position, who in enumerate(story.people):
        steps.append((_starting_step(story, position), ""))
        counts[who] = steps[-1][0].result
    for event in story.events:
        if event.kind == "halve" and counts[event.who] % 2:
            return None
        after = _changes(event, counts)
        steps += _event_steps(event, item, counts, after)
        counts |= after
    if len(story.people) == 2:
        steps = _by_person(story, steps, counts)
    numbers = [number for step, _ in steps for number in (*step.operands, step.result)]
    if not MIN_STEPS <= len(steps) <= MAX_STEPS or min(numbers) < SMALLEST_COUNT or max(numbers) > 999:
        return None
    return Problem(
        "", steps[-1][0].result, tuple(step for step, _ in steps), tuple(verb for _, verb in steps)
    )


def _starting_step(story: Story, position: int) -> Meaning:
    who, value = story.people[position], story.starts[position]
    if position == 0 or story.comparison == "start":
        return Meaning("start", (value,), value, who, story.item)
    base = story.starts[0]
    result = _compare(story.comparison, base, value)
    return Meaning(story.comparison, (base, value), result, who, story.item, story.people[0])


def _event_steps(
    event: Event, item: str, before: dict[str, int], after: dict[str, int]
) -> list[tuple[Meaning, str]]:
    """Returns the one or two steps of an event, each with the story's word for it."""
    who, has, gets = event.who, before[event.who], after[event.who]
    product = Meaning("product", (event.times, event.amount), event.times * event.amount, who, item)
    match event.kind:
        case "gain" | "gift":
            return [(Meaning("gain", (has, event.amount), gets, who, item), event.verb)]
        case "lose":
            return [(Meaning("lose", (has, event.amount), gets, who, item), event.verb)]
        case "double":
            return [(Meaning("double", (has, 2), gets, who, item), "")]
        case "halve":
            return [(Meaning("halve", (has, 2), gets, who, item), "")]
        case "bags":
            return [(product, event.verb), (Meaning("gain", (has, product.result), gets, who, item), "buys")]
        case "share":
            return [
                (product, event.verb),
                (Meaning("lose", (has, product.result), gets, who, item), "gives away"),
            ]
        case _:
            other = event.other
            return [
                (Meaning("lose", (has, event.amount), gets, who, item), "gives away"),
                (Meaning("gain", (before[other], event.amount), after[other], other, item), "gets"),
            ]


def _by_person(
    story: Story, steps: list[tuple[Meaning, str]], counts: dict[str, int]
) -> list[tuple[Meaning, str]]:
    """Orders the steps person after person, closes each one's with the count, and adds what is asked.

    If only one person's count is asked for, that person comes last, and the closing is the answer.
    """
    people = story.people
    if story.question == "final":
        people = tuple(sorted(people, key=lambda who: who == story.asked))
    ordered: list[tuple[Meaning, str]] = []
    for who in people:
        ordered += [step for step in steps if step[0].who == who]
        ordered.append((Meaning("final", (counts[who],), counts[who], who, story.item), ""))
    if story.question != "final":
        ordered.append((_last_step(story, counts), ""))
    return ordered


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
    sentences = _tell_starts(story, rng)
    for position, event in enumerate(story.events):
        opening = rng.choice(EVENT_OPENINGS) if position else ""
        wording = rng.choice(EVENT_WORDINGS[event.kind])
        if event.kind == "gain" and position and rng.random() < 0.2:
            wording = EVENT_WORDINGS["gain"][0]
        values = {
            "who": event.who,
            "other": event.other,
            "b": event.amount,
            "k": event.times,
            "unit": event.verb,
        }
        sentences.append(opening + wording.format(verb=event.verb, items=story.item, **values))
    other = next((name for name in story.people if name != story.asked), "")
    question = rng.choice(QUESTIONS[story.question])
    sentences.append(question.format(items=story.item, who=story.asked, other=other))
    return " ".join(sentences)


def _tell_starts(story: Story, rng: random.Random) -> list[str]:
    first = story.people[0]
    if len(story.people) == 1:
        return [rng.choice(INTROS).format(who=first, a=story.starts[0], items=story.item)]
    second = story.people[1]
    slots = {"a": story.starts[0], "b": story.starts[1], "items": story.item, "who": first, "other": second}
    if story.comparison == "start":
        return [rng.choice(PAIR_INTROS).format(**slots)]
    return [rng.choice(INTROS).format(**slots), rng.choice(COMPARISONS[story.comparison]).format(**slots)]
