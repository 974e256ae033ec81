"""Figures of rounding errors: how they grow with k, and how much of the bound they take."""

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from .errors import DEPTHS, KINDS, PLAIN_SUMMATION, Error
from .plots import GREY, LINE, LINES, NAMES, legend, plain_axes, text_above
from .suites import PEERS, types

LOOKS: dict[str, dict[str, Any]] = {
    **LINES,
    PLAIN_SUMMATION: LINE | {"color": "#999999", "marker": "P"},
}
LABELS = {**NAMES, PLAIN_SUMMATION: PLAIN_SUMMATION}

GROWTH = ("float32", "float64", "complex64", "bfloat16_float32")
OF_BOUND = ("float32", "float64", "complex64", "complex128", "float16", "bfloat16")
DEPTH = 512
"""The k of the second figure."""


def plot(header: dict[str, str], errors: Sequence[Error], folder: str) -> Iterator[Path]:
    """Draw both into `folder`; yields the files as they are written."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    errors = named(errors)
    for name, draw in (("growth", growth), ("bound", of_bound)):
        path = Path(folder, f"numerics-{name}.png")
        draw(header, errors).savefig(path, dpi=180, bbox_inches="tight", pad_inches=0.1)
        yield path


def named(errors: Sequence[Error]) -> list[Error]:
    """Those of nkblas on each dtype's best instruction set are called so."""
    others = {*PEERS, PLAIN_SUMMATION}
    best = {e.task.dtype: e.contender for e in errors if e.contender not in others}
    return [
        e._replace(contender="nkblas") if e.contender == best[e.task.dtype] else e for e in errors
    ]


def _axes(figure: Figure, rows: int, columns: int) -> Any:
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat:
        plain_axes(axes)
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(NullLocator())
    return grid


def _heading(figure: Figure, first: Axes, title: str, header: dict[str, str]) -> None:
    """Title, machine and legend above all panels."""
    versions = [f"{NAMES[name]} {header[name]}" for name in ("nkblas", *PEERS) if name in header]
    lines = textwrap.wrap(" · ".join([header["cpu"], header["isa"], *versions]), 140)
    above_panels = 40
    text_above(first, title, above_panels + 8 + 12 * len(lines), fontsize=12, weight="bold")
    text_above(first, "\n".join(lines), above_panels + 4, linespacing=1.25, **GREY)
    legend(first, 22, figure.axes, 6)


def growth(header: dict[str, str], errors: Sequence[Error]) -> Figure:
    """Over k, for two matrices: the largest error, and the root of the mean square."""
    kinds = ("uniform", "positive")
    figure = Figure(figsize=(11, 6))
    grid = _axes(figure, len(kinds), len(GROWTH))
    figure.subplots_adjust(wspace=0.08, hspace=0.2)
    for row, kind in zip(grid, kinds, strict=True):
        for axes, dtype in zip(row, GROWTH, strict=True):
            chosen = [e for e in errors if e.task[:3] == (dtype, kind, "matrix")]
            for name, look in LOOKS.items():
                mine = [e for e in chosen if e.contender == name and e.worst > 0]
                depths = [e.task.k for e in mine]
                if depths:
                    axes.plot(depths, [e.worst for e in mine], label=LABELS[name], **look)
                    thin = look | {"marker": "", "linestyle": ":"}
                    axes.plot(depths, [e.rms for e in mine], **thin)
            axes.plot(DEPTHS, DEPTHS, color="black", linewidth=1, label="the bound, k")
            axes.set_xscale("log")
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_ylim(1e-3, 1e5)
            axes.set_title(f"{types(dtype)}, {kind}", fontsize=8.5, loc="left")
    for axes in grid[-1]:
        axes.set_xlabel("k", **GREY)
    for axes in grid[:, 0]:
        axes.set_ylabel("error / (eps |A||B|)", **GREY)
    title = "Errors of 32 x k times k x 48: the largest, and dotted the root of the mean square"
    _heading(figure, grid[0, 0], title, header)
    return figure


def of_bound(header: dict[str, str], errors: Sequence[Error]) -> Figure:
    """For each type and kind of operands, bars of the largest error / bound."""
    figure = Figure(figsize=(11, 8))
    grid = _axes(figure, len(OF_BOUND) // 2, 2)
    figure.subplots_adjust(wspace=0.06, hspace=0.22)
    names = ["nkblas", *(x for x in PEERS if any(e.contender == x for e in errors))]
    width = 0.8 / len(names)
    for axes, dtype in zip(grid.flat, OF_BOUND, strict=True):
        wanted = (dtype, "matrix", DEPTH)
        chosen = [e for e in errors if (e.task.dtype, e.task.shape, e.task.k) == wanted]
        found: dict[tuple[str, str], float] = {
            (e.contender, e.task.kind): e.of_bound for e in chosen
        }
        for i, name in enumerate(names):
            places = [j + (i - (len(names) - 1) / 2) * width for j in range(len(KINDS))]
            values = [found.get((name, kind), 0) for kind in KINDS]
            if any(values):
                color = LOOKS[name]["color"]
                axes.bar(places, values, width, color=color, label=LABELS[name], zorder=2)
        axes.axhline(1, color="black", linewidth=1, label="the bound", zorder=3)
        axes.set_title(str(types(dtype)), fontsize=8.5, loc="left")
        axes.set_ylim(1e-4, 2e4)
    for axes in grid[-1]:
        axes.set_xticks(
            range(len(KINDS)), list(KINDS), rotation=45, ha="right", rotation_mode="anchor"
        )
    for axes in grid[:, 0]:
        axes.set_ylabel("largest error / bound", **GREY)
    title = f"How much of the bound errors take: 32 x {DEPTH} times {DEPTH} x 48"
    _heading(figure, grid[0, 0], title, header)
    return figure
