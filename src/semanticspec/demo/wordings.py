"""All words of the demo's grammar: names, items, verbs and, for each kind of step, its wordings.

Order matters: a style is a list of weights over the wordings of a kind. The target prefers the first ones,
the draft the last ones, so the pair often says the same thing in different words.
"""

from __future__ import annotations

from semanticspec.demo.meanings import Operation, StyleName

NAMES = tuple(
    "Mia Tom Ana Ben Eva Sam Zoe Max Amy Leo Ivy Dan Lily Jack Nora Adam Emma Noah Ruth Owen Lucy Paul Rosa "
    "Hugo Maya Carl Nina Finn Jane Luke Sara Mark Tina Alex Vera Kate Omar Ella Rita Ian".split()
)
FOODS = tuple(
    "apples pears plums grapes cookies candies cakes nuts eggs lemons peaches cherries muffins rolls".split()
)
THINGS = tuple(
    "pens books cards coins stamps shells marbles stickers buttons beads toys balls pencils crayons stones "
    "ribbons roses tickets badges magnets kites candles cups spoons postcards bricks".split()
)
ITEMS = FOODS + THINGS

GAIN_VERBS = {
    "buys": "buying",
    "finds": "finding",
    "gets": "getting",
    "wins": "winning",
    "collects": "collecting",
}
LOSE_VERBS = {"loses": "losing", "sells": "selling", "gives away": "giving away", "eats": "eating"}
CONTAINERS = ("bags",)
UNITS = (*CONTAINERS, "friends")

# Slots: who, other: names; items: noun; a, b: operands; r: result; verb, verbing: forms of the story's verb;
# unit: container. A slot that occurs twice must be filled alike.
STEP_WORDINGS: dict[Operation, tuple[str, ...]] = {
    "start": (
        "{who} starts with {a} {items}.",
        "At the start, {who} has {a} {items}.",
        "We are told that {who} has {a} {items} at first.",
        "The first thing we know is that {who} owns {a} {items}.",
        "In the beginning, the number of {items} that {who} has is {a}.",
        "Let me begin with {who}, who has {a} {items}.",
    ),
    "gain": (
        "{who} {verb} {b} more {items}, so {who} now has {a} + {b} = {r} {items}.",
        "Then {who} {verb} {b} more {items}, and {a} + {b} = {r}, which is the new count.",
        "After {verbing} {b} more {items}, {who} has {a} + {b} = {r} of them.",
        "The {b} {items} that {who} {verb} bring the count from {a} to {r}.",
        "Adding {b} {items} to what {who} had, we see that {a} + {b} = {r}.",
        "Next, the count of {items} for {who} goes up by {b}, and it becomes {a} + {b} = {r}.",
    ),
    "lose": (
        "{who} {verb} {b} {items}, so {who} now has {a} - {b} = {r} {items}.",
        "Then {who} {verb} {b} of the {items}, and {a} - {b} = {r}, which is what is left.",
        "After {verbing} {b} {items}, {who} has {a} - {b} = {r} of them left.",
        "The {b} {items} that {who} {verb} bring the count from {a} down to {r}.",
        "Taking {b} {items} from what {who} had, we see that {a} - {b} = {r}.",
        "Next, the count of {items} for {who} goes down by {b}, and it becomes {a} - {b} = {r}.",
    ),
    "double": (
        "{who} doubles the {items}, so {who} now has {b} * {a} = {r} {items}.",
        "Then the {items} of {who} are doubled, and {b} * {a} = {r}, which is the new count.",
        "After doubling the {items}, {who} has {b} * {a} = {r} of them.",
        "The doubling of the {items} brings {who} from {a} to {r}.",
        "Counting every one of the {items} of {who} twice, we see that {b} * {a} = {r}.",
        "Next, the count of {items} for {who} becomes two times as large, and it is {b} * {a} = {r}.",
    ),
    "halve": (
        "Half of the {items} are gone, so {who} now has {a} / {b} = {r} {items}.",
        "Then {who} keeps only half of the {items}, and {a} / {b} = {r}, which is what is left.",
        "After parting with half of the {items}, {who} has {a} / {b} = {r} of them left.",
        "Losing half of the {items} brings {who} from {a} down to {r}.",
        "Splitting the {items} of {who} into two equal parts, we see that {a} / {b} = {r}.",
        "Next, the count of {items} for {who} is cut in half, and it becomes {a} / {b} = {r}.",
    ),
    "product": (
        "{a} {unit} with {b} {items} each make {a} * {b} = {r} {items} for {who}.",
        "There are {a} {unit} and {b} {items} for each, so for {who} that is {a} * {b} = {r} {items}.",
        "For {who}, {a} {unit} with {b} {items} each come to {a} * {b} = {r} {items}.",
        "To find how many {items} {who} needs for {a} {unit}, take {b} for each, and {a} * {b} = {r}.",
        "With {b} {items} for each of the {a} {unit}, we see that {who} counts {a} * {b} = {r}.",
        "Next, for {who} we look at {a} {unit} and {b} {items} each, and {a} * {b} = {r} in all.",
    ),
    "more": (
        "{who} has {b} more {items} than {other}, so {who} starts with {a} + {b} = {r} {items}.",
        "Since {other} has {a} {items} and {who} has {b} more, {who} has {a} + {b} = {r} of them.",
        "With {b} more {items} than {other}, {who} has {a} + {b} = {r} of them at the start.",
        "Going {b} {items} above {other} takes {who} from {a} to {r}.",
        "Adding {b} to the {items} that {other} has, we see that {who} has {a} + {b} = {r}.",
        "Next, {who} begins with {b} {items} more than {other} has, and that is {a} + {b} = {r}.",
    ),
    "fewer": (
        "{who} has {b} fewer {items} than {other}, so {who} starts with {a} - {b} = {r} {items}.",
        "Since {other} has {a} {items} and {who} has {b} fewer, {who} has {a} - {b} = {r} of them.",
        "With {b} fewer {items} than {other}, {who} has {a} - {b} = {r} of them at the start.",
        "Going {b} {items} below {other} takes {who} from {a} down to {r}.",
        "Taking {b} from the {items} that {other} has, we see that {who} has {a} - {b} = {r}.",
        "Next, {who} begins with {b} {items} fewer than {other} has, and that is {a} - {b} = {r}.",
    ),
    "twice": (
        "{who} has twice as many {items} as {other}, so {who} starts with {b} * {a} = {r} {items}.",
        "Since {other} has {a} {items} and {who} has twice as many, {who} has {b} * {a} = {r} of them.",
        "With twice as many {items} as {other}, {who} has {b} * {a} = {r} of them at the start.",
        "Having twice the {items} of {other} takes {who} from {a} to {r}.",
        "Counting the {items} that {other} has twice, we see that {who} has {b} * {a} = {r}.",
        "Next, {who} begins with two times the {items} that {other} has, and that is {b} * {a} = {r}.",
    ),
    "total": (
        "Together {who} and {other} have {a} + {b} = {r} {items}.",
        "So {who} and {other} have {a} + {b} = {r} {items} in all.",
        "The total for {who} and {other} is {a} + {b} = {r} {items}.",
        "The {items} of {who} and {other} put together are {a} + {b} = {r}.",
        "Adding up the {items} of both {who} and {other}, we see that {a} + {b} = {r}.",
        "In the end, {who} has {a} {items} and {other} has {b}, and {a} + {b} = {r}.",
    ),
    "difference": (
        "So {who} has {a} - {b} = {r} more {items} than {other}.",
        "The difference between {who} and {other} is {a} - {b} = {r} {items}.",
        "Comparing the two, {who} has {a} - {b} = {r} more {items} than {other} has.",
        "The {items} of {who} are ahead of those of {other} by {a} - {b} = {r}.",
        "Taking the {items} of {other} from those of {who}, we see that {a} - {b} = {r}.",
        "In the end, {who} has {a} {items} but {other} has {b}, and {a} - {b} = {r}.",
    ),
    "final": (
        "So {who} has {a} {items} in the end.",
        "This means that {who} has {a} {items} now.",
        "We see that {who} has {a} {items} in the end.",
        "The final count of {items} for {who} is {a}.",
        "Looking back at {who}, we see that the number of {items} is {a}.",
        "In the end, the {items} that {who} has number {a}.",
    ),
}

CORRECTION_OPENINGS = (
    "Wait, that is not right.",
    "Wait, I made a mistake.",
    "Wait, let me check that step again.",
    "Wait, that step is wrong.",
    "Wait, this does not fit the story.",
    "Wait, I should do that step again.",
)
ANSWER_WORDINGS = ("The answer is \\boxed{{{r}}}.", "So it is \\boxed{{{r}}}.")

# Weights over six wordings. At temperature 0.6 the rarest nearly vanish, the middle ones are shared. The draft's
# make solutions about as long as the target's, so that a comparison of speed is none of wordiness.
STYLE_WEIGHTS: dict[StyleName, tuple[int, ...]] = {
    "target": (30, 25, 20, 12, 8, 5),
    "draft": (5, 8, 12, 30, 25, 20),
}
ANSWER_WEIGHTS: dict[StyleName, tuple[int, ...]] = {"target": (90, 10), "draft": (30, 70)}
# Share of solutions that close with the count once more before the answer, where the question leaves that free.
CLOSING_SHARE = 0.12

INTROS = (
    "{who} has {a} {items}.",
    "{who} owns {a} {items}.",
    "{who} starts with {a} {items}.",
)
COMPARISONS: dict[Operation, tuple[str, ...]] = {
    "more": ("{other} has {b} more {items} than {who}.", "{other} has {b} {items} more than {who}."),
    "fewer": ("{other} has {b} fewer {items} than {who}.", "{other} has {b} {items} fewer than {who}."),
    "twice": (
        "{other} has twice as many {items} as {who}.",
        "{other} has two times as many {items} as {who}.",
    ),
}
EventKind = str
EVENT_WORDINGS: dict[EventKind, tuple[str, ...]] = {
    "gain": ("{who} {verb} {b} more.", "{who} {verb} {b} more {items}.", "{who} {verb} {b} {items}."),
    "lose": ("{who} {verb} {b} {items}.", "{who} {verb} {b} of the {items}."),
    "gift": ("{who} gets {b} {items} from a friend.", "{who} gets {b} more {items} as a present."),
    "double": ("{who} doubles the {items}.", "{who} doubles the number of {items}."),
    "halve": (
        "{who} gives half of the {items} away.",
        "{who} sells half of the {items}.",
        "{who} loses half of the {items}.",
    ),
    "bags": (
        "{who} buys {k} {unit} of {b} {items}.",
        "{who} buys {k} {unit} with {b} {items} each.",
    ),
    "share": (
        "{who} gives {b} {items} to each of {k} friends.",
        "{who} gives {k} friends {b} {items} each.",
    ),
    "give": ("{who} gives {b} {items} to a friend.", "{who} hands {b} {items} to a friend."),
}
EVENT_OPENINGS = ("", "Then ", "After that, ", "Later, ")
QUESTIONS: dict[str, tuple[str, ...]] = {
    "final": ("How many {items} does {who} have?", "How many {items} does {who} have now?"),
    "total": (
        "How many {items} do {who} and {other} have together?",
        "How many {items} do {who} and {other} have in all?",
    ),
    "difference": ("How many more {items} does {who} have than {other}?",),
}
