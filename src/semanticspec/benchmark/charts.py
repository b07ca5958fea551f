"""The pictures of a benchmark's report, for light and for dark pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from semanticspec.benchmark.costs import drafting_methods
from semanticspec.benchmark.methods import split_name
from semanticspec.benchmark.rows import Row
from semanticspec.benchmark.summary import Comparison
from semanticspec.output.pages import Painter, Theme, draw

PHASE_NAMES = {
    "draft_s": "drafting",
    "verify_s": "verifying",
    "probe_s": "probes",
    "rewrite_s": "target writes",
    "overhead_s": "overhead",
}
_PHASE_COLOURS = ("#e69f00", "#0b72b9", "#cc79a7", "#159c74", "#8a8f98")
_METHOD_COLOURS = (
    "#0b72b9",
    "#d55e00",
    "#159c74",
    "#cc79a7",
    "#e69f00",
    "#7b6cd9",
    "#56b4e9",
    "#8a8f98",
    "#a0622d",
    "#b3a100",
    "#d6455d",
)
_MARKERS = "osD^vPX*<>"  # one fewer than colours: a style comes back after 110 methods
_POSITION_BINS = 10
_FEWEST_SEGMENTS = 5
_WIDE = (7.4, 4.4)


def draw_all(
    comparison: Comparison, summary: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[Theme, bytes]]:
    """All pictures as PNG files, by name and theme; those with nothing to show are left out."""
    plain = [name for name in summary if split_name(name)[1] is None]
    painters: dict[str, tuple[Painter, tuple[float, float]]] = {}
    if comparison.baseline is not None and plain:
        painters["accuracy_speedup"] = (_accuracy_speedup(summary, plain), _WIDE)
    if len(plain) < len(summary):
        painters["sweep"] = (_sweep(summary), _WIDE)
    height = 1.4 + 0.42 * len(summary)
    painters["time"] = (_time(comparison), (7.4, height + 0.4))
    judged = [
        name for name in drafting_methods(comparison.rows) if split_name(name)[0] not in ("always", "never")
    ]
    if judged:
        painters["acceptance"] = (_acceptance(comparison, judged), _WIDE)
    painters["lengths"] = (_lengths(comparison), (7.4, height))
    return {name: draw(painter, size) for name, (painter, size) in painters.items()}


def _style(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each method, the same in every picture of one report."""
    return {
        name: {
            "color": _METHOD_COLOURS[place % len(_METHOD_COLOURS)],
            "marker": _MARKERS[place % len(_MARKERS)],
        }
        for place, name in enumerate(names)
    }


def throughput(figures: Mapping[int, Mapping[str, Mapping[str, Any]]]) -> Painter:
    """Requests a minute of each method, over how many ran at once. `figures`: by concurrency and method."""

    def paint(axes: Any, colours: Mapping[str, str]) -> None:
        at_once = sorted(figures)
        for name, style in _style(list(figures[at_once[0]])).items():
            there = [n for n in at_once if "requests_per_s" in figures[n].get(name, {})]
            axes.plot(there, [60 * figures[n][name]["requests_per_s"] for n in there], label=name, **style)
        axes.set_xticks(at_once)
        axes.set_ylim(bottom=0)
        axes.set(title="Throughput", xlabel="requests at once", ylabel="requests a minute")
        _beside(axes, colours)

    return paint


def _beside(axes: Any, colours: Mapping[str, str]) -> None:
    """The legend beside the axes, where it covers nothing."""
    axes.legend(
        loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, labelcolor=colours["ink"], fontsize=8
    )


def _cross(axes: Any, figures: Mapping[str, Any], style: Mapping[str, Any], **more: Any) -> None:
    """One method with its intervals of speed-up and accuracy."""
    x, y = figures["speedup"], 100 * figures["accuracy"]
    (left, right), (low, high) = figures["speedup_ci95"], figures["accuracy_ci95"]
    axes.errorbar(
        [x],
        [y],
        xerr=[[max(0.0, x - left)], [max(0.0, right - x)]],
        yerr=[[max(0.0, y - 100 * low)], [max(0.0, 100 * high - y)]],
        linestyle="none",
        elinewidth=1,
        markersize=7,
        alpha=0.9,
        **style,
        **more,
    )


def _accuracy_speedup(summary: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> Painter:
    def paint(axes: Any, colours: Mapping[str, str]) -> None:
        axes.axvline(1.0, color=colours["grid"], linewidth=1.2)
        for name, style in _style(list(summary)).items():
            if name in names:
                _cross(axes, summary[name], style, label=name)
        axes.set(
            title="Accuracy against speed-up, 95 % intervals", xlabel="speed-up (×)", ylabel="accuracy (%)"
        )
        _beside(axes, colours)

    return paint


def _sweep(summary: Mapping[str, Mapping[str, Any]]) -> Painter:
    """A curve for each swept method, a point for each strictness; the target as a line across."""

    def paint(axes: Any, colours: Mapping[str, str]) -> None:
        curves: dict[str, list[tuple[float, Mapping[str, Any]]]] = {}
        for name, figures in summary.items():
            base, strictness = split_name(name)
            if strictness is not None:
                curves.setdefault(base, []).append((strictness, figures))
        if "target" in summary:
            accuracy = 100 * summary["target"]["accuracy"]
            axes.axhline(accuracy, color=colours["ink"], linewidth=1, linestyle=":", label="target")
        for (base, points), kind in zip(curves.items(), ("main", "second"), strict=False):
            points.sort(key=lambda point: point[0])
            marker = _MARKERS[0 if kind == "main" else 1]
            style = {"color": colours[kind], "marker": marker}
            xs = [figures["speedup"] for _, figures in points]
            ys = [100 * figures["accuracy"] for _, figures in points]
            name = "random control" if base == "random" else base
            axes.plot(xs, ys, linewidth=1.4, label=name, **style)
            offset = (0, 9) if kind == "main" else (0, -15)
            for x, y, (strictness, figures) in zip(xs, ys, points, strict=True):
                _cross(axes, figures, style)
                axes.annotate(
                    f"{strictness:g}",
                    (x, y),
                    textcoords="offset points",
                    xytext=(offset[0] + 8, offset[1]),
                    color=colours[kind],
                    fontsize=8,
                )
        axes.set(title="Strictness from loose to strict", xlabel="speed-up (×)", ylabel="accuracy (%)")
        _beside(axes, colours)

    return paint


def _time(comparison: Comparison) -> Painter:
    """Mean seconds of a request by phase, stacked, a bar for each method."""

    def paint(axes: Any, colours: Mapping[str, str]) -> None:
        names = list(comparison.rows)[::-1]
        count = len(comparison.cells)
        seconds = {
            phase: [comparison.total(name, phase) / count for name in names]
            for phase in PHASE_NAMES
            if phase != "overhead_s"
        }
        walls = [comparison.total(name, "wall_s") / count for name in names]
        sums = [sum(values) for values in zip(*seconds.values(), strict=True)]
        seconds["overhead_s"] = [max(0.0, wall - known) for wall, known in zip(walls, sums, strict=True)]
        left = [0.0] * len(names)
        for (phase, label), colour in zip(PHASE_NAMES.items(), _PHASE_COLOURS, strict=True):
            axes.barh(names, seconds[phase], left=left, color=colour, label=label, height=0.66)
            left = [a + b for a, b in zip(left, seconds[phase], strict=True)]
        for place, wall in enumerate(walls):
            axes.text(
                wall + 0.01 * max(walls),
                place,
                f"{wall:.3g} s",
                va="center",
                color=colours["ink"],
                fontsize=8,
            )
        axes.set_xlim(0, 1.1 * max(walls))
        axes.grid(axis="y", visible=False)
        axes.set(title="Where the time goes", xlabel="seconds a request")
        _beside(axes, colours)

    return paint


def _acceptance(comparison: Comparison, names: Sequence[str]) -> Painter:
    """Share of drafted segments that were kept, by how far into the reasoning they begin."""

    def paint(axes: Any, colours: Mapping[str, str]) -> None:
        styles = _style(list(comparison.rows))
        for name in names:
            bins = acceptance_by_position(comparison.rows[name])
            shown = [(place, kept / tried) for place, kept, tried in bins if tried >= _FEWEST_SEGMENTS]
            axes.plot(
                [100 * place for place, _ in shown],
                [100 * share for _, share in shown],
                linewidth=1.4,
                markersize=5,
                label=name,
                **styles[name],
            )
        axes.set(
            title="Acceptance by position in the reasoning",
            xlabel="where the segment begins (% of the reasoning's tokens)",
            ylabel="drafted segments kept whole (%)",
            xlim=(0, 100),
            ylim=(-3, 103),
        )
        _beside(axes, colours)

    return paint


def acceptance_by_position(rows: Sequence[Row]) -> list[tuple[float, int, int]]:
    """Middle of each tenth of the reasoning, and how many of the segments drafted there were kept, of how many."""
    kept, tried = [0] * _POSITION_BINS, [0] * _POSITION_BINS
    for row in rows:
        position = 0
        for segment in row.segments:
            if segment.accepted is not None:
                share = position / max(1, row.num_tokens - row.answer_tokens)
                place = min(_POSITION_BINS - 1, int(share * _POSITION_BINS))
                tried[place] += 1
                kept[place] += segment.accepted
            if segment.accepted is not False:
                position += segment.num_tokens
    return [((place + 0.5) / _POSITION_BINS, kept[place], tried[place]) for place in range(_POSITION_BINS)]


def _lengths(comparison: Comparison) -> Painter:
    """Output tokens of each method as boxes; beside them the share that was cut off."""

    def paint(axes: Any, colours: Mapping[str, str]) -> None:
        names = list(comparison.rows)[::-1]
        lengths = [[row.num_tokens for row in comparison.rows[name]] for name in names]
        ink = {"color": colours["ink"], "linewidth": 1}
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
            flierprops={
                "marker": ".",
                "markersize": 3,
                "markerfacecolor": colours["ink"],
                "markeredgecolor": "none",
            },
        )
        longest = max(max(values) for values in lengths)
        for place, name in enumerate(names, start=1):
            cut = comparison.total(name, "truncated") / len(comparison.cells)
            axes.text(
                1.03 * longest, place, f"{cut:.0%} cut off", va="center", color=colours["ink"], fontsize=8
            )
        axes.set_xlim(0, 1.22 * longest)
        axes.grid(axis="y", visible=False)
        axes.set(title="Lengths: quartiles, 1.5 × their range, outliers", xlabel="output tokens")

    return paint
