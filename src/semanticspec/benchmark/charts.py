"""The pictures of a benchmark's report, for light and dark pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from semanticspec.benchmark.costs import drafting_methods
from semanticspec.benchmark.methods import split_name
from semanticspec.benchmark.rows import Row
from semanticspec.benchmark.summary import Comparison
from semanticspec.output.pages import Painter, Theme, draw

WIDE = (7.4, 4.4)
PHASE_NAMES = {
    "draft_s": "drafting",
    "verify_s": "verifying",
    "probe_s": "probes",
    "rewrite_s": "target decoding",
    "overhead_s": "overhead",
}
_PHASE_COLOURS = ("#e69f00", "#0b72b9", "#cc79a7", "#159c74", "#8a8f98")
_METHOD_COLOURS = (
    *("#0b72b9", "#d55e00", "#159c74", "#cc79a7", "#e69f00", "#7b6cd9"),
    *("#56b4e9", "#8a8f98", "#a0622d", "#b3a100", "#d6455d"),
)
_MARKERS = "osD^vPX*<>"  # one fewer than colours, so that a style repeats only after 110 methods
_POSITION_BINS = 10
_MIN_SEGMENTS = 5  # a bin with fewer is not shown

Summary = Mapping[str, Mapping[str, Any]]
"""Figures by method, see `summarize`."""
_SPEEDUP = "speed-up by seconds a request (×)"


def draw_all(comparison: Comparison, summary: Summary) -> dict[str, dict[Theme, bytes]]:
    """Draws all pictures as PNG files, by name and theme. Pictures without data are left out."""
    single = [name for name in summary if split_name(name)[1] is None]
    tall = 1.4 + 0.42 * len(summary)
    painters: dict[str, tuple[Painter, tuple[float, float]]] = {}
    if comparison.baseline is not None and single:
        painters["accuracy_speedup"] = (_accuracy_speedup(summary, single), WIDE)
    if comparison.baseline is not None and len(single) < len(summary):
        painters["sweep"] = (_sweep(summary), WIDE)
    painters["time"] = (_time(comparison), (WIDE[0], tall + 0.4))
    deciding = [
        name for name in drafting_methods(comparison.rows) if split_name(name)[0] not in ("always", "never")
    ]
    if deciding:
        painters["acceptance"] = (_acceptance(comparison, deciding), WIDE)
    painters["lengths"] = (_lengths(comparison), (WIDE[0], tall))
    return {name: draw(painter, size) for name, (painter, size) in painters.items()}


def throughput(by_concurrency: Mapping[int, Summary]) -> Painter:
    """Requests per minute of each method over the number of concurrent requests."""

    def paint(axes: Any, colours: Mapping[str, str]) -> None:
        numbers = sorted(by_concurrency)
        for name, style in _styles(list(by_concurrency[numbers[0]])).items():
            shown = [n for n in numbers if "requests_per_s" in by_concurrency[n].get(name, {})]
            rates = [60 * by_concurrency[n][name]["requests_per_s"] for n in shown]
            axes.plot(shown, rates, label=name, **style)
        axes.set_xticks(numbers)
        axes.set_ylim(bottom=0)
        axes.set(title="Throughput", xlabel="concurrent requests", ylabel="requests per minute")
        _legend(axes, colours)

    return paint


def acceptance_by_position(rows: Sequence[Row]) -> list[tuple[float, int, int]]:
    """Counts drafted segments by where in the reasoning they begin.

    Returns:
        The middle of each tenth of the reasoning, and how many of the segments there were accepted, out of how many.
    """
    accepted, judged = [0] * _POSITION_BINS, [0] * _POSITION_BINS
    for row in rows:
        position = 0
        for segment in row.segments:
            if segment.accepted is not None:
                share = position / max(1, row.num_tokens - row.answer_tokens)
                place = min(_POSITION_BINS - 1, int(share * _POSITION_BINS))
                judged[place] += 1
                accepted[place] += segment.accepted
            if segment.accepted is not False:
                position += segment.num_tokens
    return [((i + 0.5) / _POSITION_BINS, accepted[i], judged[i]) for i in range(_POSITION_BINS)]


def _styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each method, the same in all pictures of a report."""
    return {
        name: {
            "color": _METHOD_COLOURS[place % len(_METHOD_COLOURS)],
            "marker": _MARKERS[place % len(_MARKERS)],
        }
        for place, name in enumerate(names)
    }


def _legend(axes: Any, colours: Mapping[str, str]) -> None:
    """Puts the legend next to the axes, where it hides no data."""
    place = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5)}
    axes.legend(**place, frameon=False, labelcolor=colours["ink"], fontsize=8)


def _error_bars(axes: Any, figures: Mapping[str, Any], style: Mapping[str, Any], **more: Any) -> None:
    """Draws one method with the intervals of its speed-up and accuracy."""
    x, y = figures["speedup"], 100 * figures["accuracy"]
    (left, right), (low, high) = figures["speedup_ci95"], figures["accuracy_ci95"]
    x_errors = [[max(0.0, x - left)], [max(0.0, right - x)]]
    y_errors = [[max(0.0, y - 100 * low)], [max(0.0, 100 * high - y)]]
    look = {"linestyle": "none", "elinewidth": 1, "markersize": 7, "alpha": 0.9, **style, **more}
    axes.errorbar([x], [y], xerr=x_errors, yerr=y_errors, **look)


def _accuracy_speedup(summary: Summary, names: Sequence[str]) -> Painter:
    def paint(axes: Any, colours: Mapping[str, str]) -> None:
        axes.axvline(1.0, color=colours["grid"], linewidth=1.2)
        for name, style in _styles(list(summary)).items():
            if name in names:
                _error_bars(axes, summary[name], style, label=name)
        axes.set(
            title="Accuracy and speed-up, 95 % intervals",
            xlabel=_SPEEDUP,
            ylabel="accuracy (%)",
        )
        _legend(axes, colours)

    return paint


def _sweep(summary: Summary) -> Painter:
    """One curve per swept method with a point per strictness, and the target's accuracy as a line."""

    def paint(axes: Any, colours: Mapping[str, str]) -> None:
        curves: dict[str, list[tuple[float, Mapping[str, Any]]]] = {}
        for name, figures in summary.items():
            base, strictness = split_name(name)
            if strictness is not None:
                curves.setdefault(base, []).append((strictness, figures))
        if "target" in summary:
            accuracy = 100 * summary["target"]["accuracy"]
            axes.axhline(accuracy, color=colours["ink"], linewidth=1, linestyle=":", label="target")
        looks = (("main", _MARKERS[0], (8, 9)), ("second", _MARKERS[1], (8, -15)))
        for (base, points), (colour, marker, offset) in zip(curves.items(), looks, strict=False):
            points.sort(key=lambda point: point[0])
            style = {"color": colours[colour], "marker": marker}
            xs = [figures["speedup"] for _, figures in points]
            ys = [100 * figures["accuracy"] for _, figures in points]
            label = "random control" if base == "random" else base
            axes.plot(xs, ys, linewidth=1.4, label=label, **style)
            text = {"textcoords": "offset points", "xytext": offset, "color": colours[colour], "fontsize": 8}
            for x, y, (strictness, figures) in zip(xs, ys, points, strict=True):
                _error_bars(axes, figures, style)
                axes.annotate(f"{strictness:g}", (x, y), **text)
        axes.set(
            title="Strictness from loose to strict",
            xlabel=_SPEEDUP,
            ylabel="accuracy (%)",
        )
        _legend(axes, colours)

    return paint


def _time(comparison: Comparison) -> Painter:
    """Mean seconds per request, one stacked bar of phases per method."""

    def paint(axes: Any, colours: Mapping[str, str]) -> None:
        names, count = list(comparison.rows)[::-1], len(comparison.requests)
        walls = [comparison.total(name, "wall_s") / count for name in names]
        longest, left = max(walls), [0.0] * len(names)
        for (phase, label), colour in zip(PHASE_NAMES.items(), _PHASE_COLOURS, strict=True):
            if phase == "overhead_s":
                seconds = [max(0.0, wall - known) for wall, known in zip(walls, left, strict=True)]
            else:
                seconds = [comparison.total(name, phase) / count for name in names]
            axes.barh(names, seconds, left=left, color=colour, label=label, height=0.66)
            left = [a + b for a, b in zip(left, seconds, strict=True)]
        text = {"va": "center", "color": colours["ink"], "fontsize": 8}
        for place, wall in enumerate(walls):
            axes.text(wall + 0.01 * longest, place, f"{wall:.3g} s", **text)
        axes.set_xlim(0, 1.1 * longest)
        axes.grid(axis="y", visible=False)
        axes.set(title="Where the time goes", xlabel="seconds per request")
        _legend(axes, colours)

    return paint


def _acceptance(comparison: Comparison, names: Sequence[str]) -> Painter:
    """Share of drafted segments that were accepted, by where in the reasoning they begin."""

    def paint(axes: Any, colours: Mapping[str, str]) -> None:
        styles = _styles(list(comparison.rows))
        for name in names:
            bins = acceptance_by_position(comparison.rows[name])
            shown = [
                (100 * middle, 100 * n / judged) for middle, n, judged in bins if judged >= _MIN_SEGMENTS
            ]
            xs, ys = [x for x, _ in shown], [y for _, y in shown]
            axes.plot(xs, ys, linewidth=1.4, markersize=5, label=name, **styles[name])
        axes.set(
            title="Acceptance by position in the reasoning",
            xlabel="start of the segment (% of the reasoning's tokens)",
            ylabel="drafted segments accepted (%)",
            xlim=(0, 100),
            ylim=(-3, 103),
        )
        _legend(axes, colours)

    return paint


def _lengths(comparison: Comparison) -> Painter:
    """Box plots of output tokens, and the share of truncated outputs."""

    def paint(axes: Any, colours: Mapping[str, str]) -> None:
        names = list(comparison.rows)[::-1]
        lengths = [[row.num_tokens for row in comparison.rows[name]] for name in names]
        ink = {"color": colours["ink"], "linewidth": 1}
        outliers = {
            "marker": ".",
            "markersize": 3,
            "markerfacecolor": colours["ink"],
            "markeredgecolor": "none",
        }
        axes.boxplot(
            lengths,
            orientation="horizontal",
            tick_labels=names,
            widths=0.6,
            patch_artist=True,
            boxprops={"facecolor": colours["main"], "edgecolor": "none", "alpha": 0.55},
            whiskerprops=ink,
            capprops=ink,
            medianprops={"color": colours["ink"], "linewidth": 1.6},
            flierprops=outliers,
        )
        longest = max(1, *(max(values) for values in lengths))
        text = {"va": "center", "color": colours["ink"], "fontsize": 8}
        for place, name in enumerate(names, start=1):
            truncated = comparison.total(name, "truncated") / len(comparison.requests)
            axes.text(1.03 * longest, place, f"{truncated:.0%} truncated", **text)
        axes.set_xlim(0, 1.22 * longest)
        axes.grid(axis="y", visible=False)
        axes.set(title="Lengths: quartiles, 1.5 × interquartile range, outliers", xlabel="output tokens")

    return paint
