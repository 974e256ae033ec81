"""Figures of rounding errors: their growth with k, and their fraction of the bound."""

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from .error_tasks import DEPTHS, KINDS
from .plots import (
    BASE_STYLE,
    DISPLAY_NAMES,
    LABEL_STYLE,
    LINE_STYLES,
    add_legend,
    style_axes,
    text_above,
)
from .rounding_errors import PLAIN_SUMMATION, ErrorResult
from .suites import PEER_NAMES, parse_dtypes

STYLES: dict[str, dict[str, Any]] = {
    **LINE_STYLES,
    PLAIN_SUMMATION: BASE_STYLE | {"color": "#999999", "marker": "P"},
}
LABELS = {**DISPLAY_NAMES, PLAIN_SUMMATION: PLAIN_SUMMATION}

GROWTH_DTYPES = ("float32", "float64", "complex64", "bfloat16_float32")
GROWTH_KINDS = ("uniform", "positive")
BOUND_DTYPES = ("float32", "float64", "complex64", "complex128", "float16", "bfloat16")
BOUND_DEPTH = 512
"""The k of the figure of the bound."""

LEGEND_POINTS = 22
MACHINE_POINTS = 44
"""Distances in points between the panels and the legend and the description above them."""


def plot(header: dict[str, str], results: Sequence[ErrorResult], folder: str) -> Iterator[Path]:
    """Draw both figures; yield each file when it is written."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    results = rename_best_isa(results)
    for name, draw in (("growth", draw_growth), ("bound", draw_bound)):
        path = Path(folder, f"numerics-{name}.png")
        draw(header, results).savefig(path, dpi=180, bbox_inches="tight", pad_inches=0.1)
        yield path


def rename_best_isa(results: Sequence[ErrorResult]) -> list[ErrorResult]:
    """The results, those of each dtype's most capable instruction set renamed to "nkblas"."""
    others = {*PEER_NAMES, PLAIN_SUMMATION}
    best = {x.task.dtype: x.contender for x in results if x.contender not in others}
    return [
        x._replace(contender="nkblas") if x.contender == best[x.task.dtype] else x for x in results
    ]


def _create_panels(figure: Figure, rows: int, columns: int) -> Any:
    """An array of axes with a logarithmic y axis."""
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat:
        style_axes(axes)
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(NullLocator())
    return grid


def _add_heading(figure: Figure, first: Axes, title: str, header: dict[str, str]) -> None:
    """Title, description of the machine and legend above all panels."""
    names = ("nkblas", *PEER_NAMES)
    versions = [f"{DISPLAY_NAMES[name]} {header[name]}" for name in names if name in header]
    lines = textwrap.wrap(" · ".join([header["cpu"], header["isa"], *versions]), 140)
    title_points = MACHINE_POINTS + 4 + 12 * len(lines)
    text_above(first, title, title_points, fontsize=12, weight="bold")
    text_above(first, "\n".join(lines), MACHINE_POINTS, linespacing=1.25, **LABEL_STYLE)
    add_legend(first, LEGEND_POINTS, figure.axes, 6)


def draw_growth(header: dict[str, str], results: Sequence[ErrorResult]) -> Figure:
    """Largest and root mean square error of products of two matrices, over k."""
    figure = Figure(figsize=(11, 6))
    grid = _create_panels(figure, len(GROWTH_KINDS), len(GROWTH_DTYPES))
    figure.subplots_adjust(wspace=0.08, hspace=0.2)
    for row, kind in zip(grid, GROWTH_KINDS, strict=True):
        for axes, dtype in zip(row, GROWTH_DTYPES, strict=True):
            selected = [x for x in results if x.task[:3] == (dtype, kind, "matrix")]
            _draw_growth_panel(axes, selected)
            axes.set_title(f"{parse_dtypes(dtype)}, {kind}", fontsize=8.5, loc="left")
    for axes in grid[-1]:
        axes.set_xlabel("k", **LABEL_STYLE)
    for axes in grid[:, 0]:
        axes.set_ylabel("error / (eps |A||B|)", **LABEL_STYLE)
    title = "Errors of 32 x k times k x 48: maximum, and root mean square (dotted)"
    _add_heading(figure, grid[0, 0], title, header)
    return figure


def _draw_growth_panel(axes: Axes, results: Sequence[ErrorResult]) -> None:
    """Lines of each contender over k, and the bound."""
    for name, style in STYLES.items():
        own = [x for x in results if x.contender == name and x.worst > 0]
        depths = [x.task.k for x in own]
        if depths:
            axes.plot(depths, [x.worst for x in own], label=LABELS[name], **style)
            dotted = style | {"marker": "", "linestyle": ":"}
            axes.plot(depths, [x.rms for x in own], **dotted)
    axes.plot(DEPTHS, DEPTHS, color="black", linewidth=1, label="the bound, k")
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(1e-3, 1e5)


def draw_bound(header: dict[str, str], results: Sequence[ErrorResult]) -> Figure:
    """Bars of the largest error / bound, for each dtype and kind of operands."""
    figure = Figure(figsize=(11, 8))
    grid = _create_panels(figure, len(BOUND_DTYPES) // 2, 2)
    figure.subplots_adjust(wspace=0.06, hspace=0.22)
    names = ["nkblas", *(x for x in PEER_NAMES if any(y.contender == x for y in results))]
    for axes, dtype in zip(grid.flat, BOUND_DTYPES, strict=True):
        key = (dtype, "matrix", BOUND_DEPTH)
        selected = [x for x in results if (x.task.dtype, x.task.shape, x.task.k) == key]
        _draw_bound_panel(axes, names, selected)
        axes.set_title(str(parse_dtypes(dtype)), fontsize=8.5, loc="left")
    for axes in grid[-1]:
        axes.set_xticks(
            range(len(KINDS)), list(KINDS), rotation=45, ha="right", rotation_mode="anchor"
        )
    for axes in grid[:, 0]:
        axes.set_ylabel("largest error / bound", **LABEL_STYLE)
    title = f"Errors as a fraction of the bound: 32 x {BOUND_DEPTH} times {BOUND_DEPTH} x 48"
    _add_heading(figure, grid[0, 0], title, header)
    return figure


def _draw_bound_panel(axes: Axes, names: Sequence[str], results: Sequence[ErrorResult]) -> None:
    """Bars of each contender for each kind of operands."""
    width = 0.8 / len(names)
    fractions = {(x.contender, x.task.kind): x.of_bound for x in results}
    for i, name in enumerate(names):
        positions = [j + (i - (len(names) - 1) / 2) * width for j in range(len(KINDS))]
        values = [fractions.get((name, kind), 0) for kind in KINDS]
        if any(values):
            color = STYLES[name]["color"]
            axes.bar(positions, values, width, color=color, label=LABELS[name], zorder=2)
    axes.axhline(1, color="black", linewidth=1, label="the bound", zorder=3)
    axes.set_ylim(1e-4, 2e4)
