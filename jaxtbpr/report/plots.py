"""Plots as inline SVG, in the colours of the page.

Matplotlib draws in marker colours, which are then replaced by the page's CSS variables: so the
plots follow the reader's light or dark mode and use the font of the text around them.
"""

import dataclasses
import io
import itertools
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

MAX_POINTS = 400
_TEXT, _GRID = "#010203", "#010204"
_SERIES = [f"#0103{n:02x}" for n in range(6)]
# Lines differ in dashes as well as in colour, for those who see no colours.
_DASHES = [(), (5, 2), (1.5, 1.5), (6, 1.5, 1.5, 1.5), (3, 3), (8, 3)]
_VARIABLES = {_TEXT: "ink-2", _GRID: "line"} | {c: f"series-{n}" for n, c in enumerate(_SERIES)}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "jaxtbpr",
    "font.size": 9.0,
    "text.color": _TEXT,
    "axes.labelcolor": _TEXT,
    "axes.edgecolor": _GRID,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": _GRID,
    "grid.linewidth": 0.7,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a plot: its name and points; marks: also dots on them; quiet: thin and grey."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    marks: bool = False
    quiet: bool = False


@dataclasses.dataclass(frozen=True)
class Plot:
    """A plot of the page; alt: its content in words; legend: [] where there is only one line."""

    title: str
    svg: str
    alt: str
    legend: list["Key"]


@dataclasses.dataclass(frozen=True)
class Key:
    """A line's entry in the legend; colour: a CSS variable's name; dashes: "" where solid."""

    name: str
    colour: str
    dashes: str


def lines(
    title: str,
    lines_shown: Sequence[Line],
    *,
    x_label: str,
    percent: bool = False,
    smooth: bool = False,
    from_zero: bool = False,
) -> Plot:
    """Draws lines over a common x.

    percent: y is a fraction, labelled in percent. smooth: the points faint, a running mean above
    them. from_zero: the y axis begins at zero.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _empty(x_label)
        looks = _looks(lines_shown)
        for line, (colour, dashes) in zip(lines_shown, looks, strict=True):
            _draw(axes, line, colour, dashes, smooth)
        if from_zero:
            axes.set_ylim(bottom=0)
        _label(axes, percent)
        svg = _svg(figure)
    legend = [
        Key(line.name, _VARIABLES[colour], " ".join(map(str, dashes)))
        for line, (colour, dashes) in zip(lines_shown, looks, strict=True)
    ]
    legend = legend if len(legend) > 1 else []
    alt = f"{title} by {x_label}. " + " ".join(_in_words(line, percent) for line in lines_shown)
    return Plot(title, svg, alt, legend)


def histogram(title: str, counts: dict[int, int], *, x_label: str) -> Plot:
    """Draws how often each whole number occurs; counts: {number: how often}."""
    low, high = min(counts), max(counts)
    values = np.arange(low, high + 1)
    heights = [counts.get(int(value), 0) for value in values]
    with matplotlib.rc_context(_STYLE):
        figure, axes = _empty(x_label)
        axes.bar(values, heights, width=0.8, color=_SERIES[0], alpha=0.85)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        _label(axes, percent=False)
        svg = _svg(figure)
    most = max(counts, key=lambda value: (counts[value], -value))
    alt = f"{title}: from {low} to {high}, most often {most}."
    return Plot(title, svg, alt, [])


def thin(x: Sequence[float], y: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Returns at most `MAX_POINTS` points: the means of equal runs; finite ones only."""
    xs, ys = np.asarray(x, np.float64), np.asarray(y, np.float64)
    finite = np.isfinite(ys)
    xs, ys = xs[finite], ys[finite]
    if len(xs) <= MAX_POINTS:
        return xs, ys
    runs = zip(np.array_split(xs, MAX_POINTS), np.array_split(ys, MAX_POINTS), strict=True)
    means = np.array([(a.mean(), b.mean()) for a, b in runs])
    return means[:, 0], means[:, 1]


def _empty(x_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.0, 2.7), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axisbelow(True)
    axes.set_xlabel(x_label)
    return figure, axes


def _looks(lines_shown: Sequence[Line]) -> list[tuple[str, tuple[float, ...]]]:
    """Returns each line's colour and dashes; quiet lines are grey and dotted."""
    looks = itertools.cycle(zip(_SERIES, _DASHES, strict=True))
    return [(_TEXT, (1.0, 2.0)) if line.quiet else next(looks) for line in lines_shown]


def _draw(axes: Axes, line: Line, colour: str, dashes: tuple[float, ...], smooth: bool) -> None:
    x, y = thin(line.x, line.y)
    dots = {"marker": "o", "markersize": 3.2, "markeredgewidth": 0} if line.marks else {}
    if smooth and len(x) > 20:
        axes.plot(x, y, color=colour, linewidth=0.8, alpha=0.3)
        y = _running_mean(y, len(y) // 20)
        dots = {}
    width = 1.1 if line.quiet else 1.7
    style = (0, dashes) if dashes else "solid"
    axes.plot(x, y, color=colour, linewidth=width, linestyle=style, **dots)


def _running_mean(y: np.ndarray, reach: int) -> np.ndarray:
    """Returns the mean over `reach` points to either side, fewer near the ends but symmetric."""
    total = np.concatenate([[0.0], np.cumsum(y)])
    place = np.arange(len(y))
    reaches = np.minimum(reach, np.minimum(place, place[::-1]))
    return (total[place + reaches + 1] - total[place - reaches]) / (2 * reaches + 1)


def _label(axes: Axes, percent: bool) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: _number(y, percent)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _number(x, False)))


def _number(value: float, percent: bool) -> str:
    if percent:
        return f"{100 * value:.3g}%"
    if value and abs(value) < 1e-3:
        return f"{value:.1e}".replace("e-0", "e-")
    return f"{value:,.6g}" if abs(value) >= 1000 else f"{value:.3g}"


def _in_words(line: Line, percent: bool) -> str:
    y = np.asarray(line.y, np.float64)
    y = y[np.isfinite(y)]
    if not len(y):
        return f"{line.name}: no values."
    first, last, low, high = (_number(v, percent) for v in (y[0], y[-1], y.min(), y.max()))
    return f"{line.name}: from {first} to {last}, lowest {low}, highest {high}."


def _svg(figure: Figure) -> str:
    """Returns the figure's SVG element: scalable, in the page's colours and fonts, no ids."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue().decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'<style type="text/css">.*?</style>', "", text, flags=re.S)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = re.sub(r'width="[\d.]+pt" height="[\d.]+pt" ', 'aria-hidden="true" ', text, count=1)
    for colour, name in _VARIABLES.items():
        text = text.replace(colour, f"var(--{name})")
    return re.sub(r"\s*\n\s*", "\n", text).strip()
