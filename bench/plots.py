"""Figures: a PNG for each suite, dtype and number of threads, sized for a README."""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from math import isnan
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation

from .report import (
    geometric_mean,
    gflops,
    peers_of,
    roofline_fraction,
    row_label,
    speedup,
    speedup_over_plain_product,
    table_key,
    title,
)
from .results import BenchmarkRun, Result
from .suites import PEER_NAMES, SUITES, Case

DISPLAY_NAMES = {
    "nkblas": "nkblas",
    "numpy": "NumPy",
    "openblas": "OpenBLAS",
    "aocl": "AOCL-BLAS",
    "mkl": "MKL",
    "torch": "PyTorch",
    "jax": "JAX",
    "product": "nkblas's a @ b",
}

BASE_STYLE: dict[str, Any] = {
    "linewidth": 1,
    "markersize": 5,
    "markeredgecolor": "white",
    "markeredgewidth": 0.6,
    "zorder": 3,
    "clip_on": False,
}

LINE_STYLES: dict[str, dict[str, Any]] = {
    "nkblas": BASE_STYLE | {"color": "#d55e00", "marker": "o", "markersize": 6, "zorder": 4},
    "numpy": BASE_STYLE | {"color": "#0072b2", "marker": "s"},
    "openblas": BASE_STYLE | {"color": "#56b4e9", "marker": "X"},
    "aocl": BASE_STYLE | {"color": "#e69f00", "marker": "<"},
    "mkl": BASE_STYLE | {"color": "#009e73", "marker": "^"},
    "torch": BASE_STYLE | {"color": "#9467bd", "marker": "D", "markersize": 4},
    "jax": BASE_STYLE | {"color": "#cc79a7", "marker": "v"},
    "product": BASE_STYLE | {"color": "#999999", "marker": "P"},
}
"""Colours that remain distinct with colour blindness, and markers that do in greyscale print."""

LABEL_STYLE: dict[str, Any] = {"fontsize": 8.5, "color": "#555555"}

LOG_TICKS = (
    (2.5, (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.5, 1.7, 2, 2.5)),
    (12, (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10)),
    (120, (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)),
    (float("inf"), tuple(x * 10.0**exponent for exponent in range(-6, 5) for x in (1, 3))),
)
"""Ticks of a logarithmic axis, by the largest ratio of its ends that they are used for."""

GROUP_LABEL_POINTS = 7
"""Distance in points between the axes and the names of groups above them."""

POINTS_PER_INCH = 72


def plot(run: BenchmarkRun, folder: str) -> Iterator[Path]:
    """Draw a figure for each table of a run; yield each file when it is written."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for key, results in groupby(run.results, key=table_key):
        path = Path(folder, "-".join(map(str, key)).replace(" ", "-") + ".png")
        figure = draw(list(results), run.header)
        figure.savefig(path, dpi=180, bbox_inches="tight", pad_inches=0.1)
        yield path


class Group(NamedTuple):
    """Results of one group of a suite, and their positions on the x axis."""

    name: str
    results: list[Result]
    positions: list[int]

    @property
    def labels(self) -> list[str]:
        """Tick labels, without what the title or the name of the group says."""
        if SUITES[self.results[0].suite].rows_are_dtypes:
            return [row_label(result) for result in self.results]
        cases = [result.case for result in self.results]
        if all(case == Case(case.m, case.m, case.m) for case in cases):
            return [str(case.m) for case in cases]
        if self.name and len({case.expression for case in cases}) == 1:
            return [case.size for case in cases]
        return [str(case) for case in cases]


def group_results(results: Sequence[Result]) -> list[Group]:
    """Results by the groups of their suite, with a gap between two groups."""
    names = {
        case: name for name, cases in SUITES[results[0].suite].groups.items() for case in cases
    }
    groups: list[Group] = []
    position = 0
    for name, members in groupby(results, key=lambda result: names.get(result.case, "")):
        group = list(members)
        groups.append(Group(name, group, list(range(position, position + len(group)))))
        position += len(group) + 1
    return groups


def draw(results: Sequence[Result], header: dict[str, str]) -> Figure:
    """Draw one table.

    The upper panel has fractions of the roofline, or speeds; the lower panel has speed-ups.
    """
    figure = Figure(figsize=(9, 5.4))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(6, 5))
    figure.subplots_adjust(hspace=0.26)
    for axes in (upper, lower):
        style_axes(axes)
    groups = group_results(results)
    _draw_speeds(upper, groups)
    _draw_speedups(lower, groups)
    _label_cases(upper, lower, groups)

    legend_points = 24 if any(group.name for group in groups) else 8
    machine = _describe_machine(results[0], header)
    add_legend(lower, 4)
    add_legend(upper, legend_points)
    text_above(upper, "\n".join(machine), legend_points + 22, linespacing=1.25, **LABEL_STYLE)
    title_points = legend_points + 26 + 12 * len(machine)
    text_above(upper, title(results[0]), title_points, fontsize=12, weight="bold")
    return figure


def _draw_speeds(axes: Axes, groups: Sequence[Group]) -> None:
    """Fractions of the roofline of each contender; speeds, if rows are dtypes."""
    results = [result for group in groups for result in group.results]
    suite = SUITES[results[0].suite]
    names = ["nkblas", *peers_of(results[0])]
    value = gflops if suite.rows_are_dtypes else roofline_fraction
    for name in names:
        _draw_lines(axes, name, DISPLAY_NAMES[name], groups, partial(value, name))
    values = [value(name, result) for result in results for name in names if name in result.gflops]
    if suite.rows_are_dtypes or median(values) < 0.1:
        set_logarithmic(axes, values)
    else:
        axes.set_ylim(0, max(1, *values) if max(values) > 0.6 else max(values))
    if suite.rows_are_dtypes:
        axes.set_ylabel("$10^9$ operations per second", **LABEL_STYLE)
    else:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda fraction, _: f"{100 * fraction:g} %"))
        limit = "of FMA peak or bandwidth" if suite.may_be_memory_bound else "of the FMA peak"
        axes.set_ylabel(limit, **LABEL_STYLE)


def _draw_speedups(axes: Axes, groups: Sequence[Group]) -> None:
    """Speed-ups of nkblas over each peer, and over its plain product."""
    results = [result for group in groups for result in group.results]
    axes.axhline(1, color="black", linewidth=1, zorder=2)
    functions: dict[str, Callable[[Result], float]] = {
        peer: partial(speedup, peer) for peer in peers_of(results[0])
    }
    if results[0].over_product:
        functions["product"] = speedup_over_plain_product
    drawn: list[float] = [1]
    for name, function in functions.items():
        values = [x for x in map(function, results) if not isnan(x)]
        label = f"over {DISPLAY_NAMES[name]}: {geometric_mean(values):.2f}"
        _draw_lines(axes, name, label, groups, function)
        drawn += values
    set_logarithmic(axes, drawn)
    axes.set_ylabel("speed-up of nkblas", **LABEL_STYLE)
    text_above(axes, "geometric means", 20, x=1, ha="right", style="italic", **LABEL_STYLE)


def _label_cases(upper: Axes, lower: Axes, groups: Sequence[Group]) -> None:
    """Labels of the cases below both panels, and names of the groups above them."""
    positions = [position for group in groups for position in group.positions]
    labels = [label for group in groups for label in group.labels]
    lower.set_xlim(-0.5, positions[-1] + 0.5)
    lower.set_xticks(positions, labels, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    for group in groups:
        middle = (group.positions[0] + group.positions[-1] + 1) / (2 * (positions[-1] + 1))
        text_above(upper, group.name, GROUP_LABEL_POINTS, x=middle, ha="center", **LABEL_STYLE)


def _draw_lines(
    axes: Axes,
    contender: str,
    label: str,
    groups: Sequence[Group],
    value: Callable[[Result], float],
) -> None:
    """One line for each group."""
    style, shift = LINE_STYLES[contender], 0.0
    if SUITES[groups[0].results[0].suite].rows_are_dtypes:
        style = style | {"linewidth": 0}  # dtypes are no sequence: markers side by side
        shift = 0.14 * (list(LINE_STYLES).index(contender) - len(PEER_NAMES) // 2)
    for group in groups:
        values = [value(result) for result in group.results]
        axes.plot([x + shift for x in group.positions], values, label=label, **style)
        label = ""  # once in the legend


def set_logarithmic(
    axes: Axes, values: Sequence[float], dimension: Literal["x", "y"] = "y"
) -> None:
    """Make an axis logarithmic, with limits and ticks for some values."""
    low, high = min(values), max(values)
    limits = low / 1.05, high * 1.05
    axes.set(**{f"{dimension}scale": "log", f"{dimension}lim": limits})
    ticks = next(ticks for max_ratio, ticks in LOG_TICKS if high <= max_ratio * low)
    axis = {"x": axes.xaxis, "y": axes.yaxis}[dimension]
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def style_axes(axes: Axes) -> None:
    """Draw horizontal grid lines, and no frame."""
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.tick_params(length=0, labelsize=8.5, colors=LABEL_STYLE["color"])
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def text_above(axes: Axes, text: str, points: float, x: float = 0, **style: Any) -> None:
    """Write text above the axes, at a distance in points and at a fraction `x` of their width."""
    axes.annotate(text, (x, 1), (0, points), "axes fraction", "offset points", **style)


def add_legend(axes: Axes, points: float, sources: Sequence[Axes] = (), columns: int = 5) -> None:
    """Add a legend in rows above the axes.

    Parameters
    ----------
    axes : Axes
    points : float
        Distance between the axes and the legend.
    sources : sequence of Axes
        The axes whose lines are in the legend; by default `axes`.
    columns : int
    """
    handles: dict[str, Any] = {}
    for source in sources or (axes,):
        for handle, label in zip(*source.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if not handles:
        return
    shift = ScaledTranslation(0, points / POINTS_PER_INCH, axes.figure.dpi_scale_trans)
    axes.legend(
        handles.values(),
        handles.keys(),
        loc="lower left",
        bbox_to_anchor=(0, 1),
        bbox_transform=axes.transAxes + shift,
        borderpad=0,
        borderaxespad=0,
        ncols=columns,
        frameon=False,
        fontsize=8.5,
    )


def _describe_machine(first: Result, header: dict[str, str]) -> list[str]:
    """The machine and the versions of the contenders, in lines that fit the figure."""
    threads = f"{first.threads} thread" + "s" * (first.threads > 1)
    versions = [f"{DISPLAY_NAMES[name]} {header[name]}" for name in ("nkblas", *peers_of(first))]
    return textwrap.wrap(" · ".join([header["cpu"], header["isa"], threads, *versions]), 120)
