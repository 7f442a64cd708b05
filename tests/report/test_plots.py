import re

import numpy as np
import pytest

from jaxtbpr.report import plots, training
from jaxtbpr.report.plots import Line


def curve(n=30, **options):
    return Line("loss", range(n), np.linspace(3, 1, n), **options)


def test_a_plot_has_the_pages_colours_and_no_fixed_ones():
    plot = plots.lines("Loss", [curve(), curve(quiet=True)], x_label="step", smooth=True)
    colours = set(re.findall(r"(?:fill|stroke): ([^;\"]+)", plot.svg))
    assert colours == {"none", "var(--ink-2)", "var(--line)", "var(--series-0)"}
    assert plot.svg.startswith("<svg")
    assert "font-family" not in plot.svg
    assert "<style" not in plot.svg
    assert ' id="figure' not in plot.svg


def test_the_legend_has_each_lines_colour_and_dashes():
    lines = [Line(name, [1, 2], [0.1, 0.2]) for name in "ab"] + [curve(quiet=True)]
    plot = plots.lines("R@1", lines, x_label="epoch")
    keys = [(key.name, key.colour) for key in plot.legend]
    assert keys == [("a", "series-0"), ("b", "series-1"), ("loss", "ink-2")]
    assert plot.legend[0].dashes == ""
    assert len({key.dashes for key in plot.legend}) == 3


def test_one_line_needs_no_legend():
    assert plots.lines("Loss", [curve()], x_label="step").legend == []


def test_the_words_for_a_plot_tell_its_course():
    line = Line("R@1", [1, 2, 3], [0.1, 0.55, 0.5])
    plot = plots.lines("R@1 by epoch", [line], x_label="epoch", percent=True)
    assert plot.alt.endswith("R@1: from 10% to 50%, lowest 10%, highest 55%.")


@pytest.mark.parametrize("values", [[], [float("nan")], [2.0], [2.0, float("inf"), 2.0]])
def test_odd_values_are_drawn_without_complaint(values):
    line = Line("loss", range(len(values)), values)
    assert plots.lines("Loss", [line], x_label="step", smooth=True, from_zero=True).svg


def test_many_points_become_few_with_the_same_mean():
    x, y = plots.thin(range(100_000), np.sin(np.arange(100_000)) + 5)
    assert len(x) == len(y) == plots.MAX_POINTS
    assert y.mean() == pytest.approx(5, abs=1e-3)
    assert x[0] < x[-1]


def test_more_lines_than_colours_are_drawn():
    many = [Line(str(n), [1, 2], [n, n]) for n in range(9)]
    assert len(plots.lines("R@1", many, x_label="epoch").legend) == 9


def test_a_histogram_names_its_range_and_peak():
    plot = plots.histogram("Words", {4: 2, 9: 7, 5: 7}, x_label="words")
    assert plot.alt == "Words: from 4 to 9, most often 5."


def test_scalars_come_in_their_order_and_unknown_ones_last(tmp_path):
    row = '{{"step": {}, "zebra_count": 1.0, "learning_rate": 0.1, "loss": 2.0, "epoch": 1}}\n'
    text = "".join(row.format(step) for step in range(5)) + '{"step": 9, "lo'
    (tmp_path / "metrics.jsonl").write_text(text)
    titles = [plot.title for plot in training.scalar_plots(tmp_path)]
    assert titles == ["Loss", "Learning rate", "zebra count"]


def test_no_files_give_no_plots(tmp_path):
    assert training.scalar_plots(tmp_path) == []
    assert training.recall_plot(tmp_path) is None
