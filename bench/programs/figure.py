"""A figure: bars of the speed-ups of each program, sized for a README."""

from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ..plots import LABEL_STYLE, LINE_STYLES, add_legend, set_logarithmic, style_axes, text_above
from ..report import geometric_mean
from .measurements import ProgramResult, Way

BAR_HEIGHT = 0.36

BAR_STYLES: dict[Way, dict[str, Any]] = {
    "warm": {"color": LINE_STYLES["nkblas"]["color"]},
    "cold": {"color": LINE_STYLES["openblas"]["color"]},
}


def draw(results: Sequence[ProgramResult], machine: str, title: str) -> Figure:
    """Draw bars from 1 to the speed-ups of nkblas over plain Python, on a logarithmic axis.

    Parameters
    ----------
    results : sequence of ProgramResult
        Those without measured runs are left out.
    machine : str
        A line below the title.
    title : str
    """
    measured = [result for result in results if result.seconds("plain")]
    figure = Figure(figsize=(9, 1.2 + 0.36 * len(measured)))
    axes = figure.subplots()
    style_axes(axes)
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.axvline(1, color="black", linewidth=1, zorder=4)
    drawn = [1.0]
    ways = [way for way in BAR_STYLES if any(x.seconds(way) for x in measured)]
    for i, way in enumerate(ways):
        speedups = [result.speedup(way) for result in measured]
        shift = BAR_HEIGHT * (i - (len(ways) - 1) / 2)
        positions = [row + shift for row in range(len(measured))]
        axes.barh(
            positions,
            [speedup - 1 for speedup in speedups],
            BAR_HEIGHT,
            left=1,
            label=f"{way} cache: {geometric_mean(speedups):.2f}",
            zorder=3,
            **BAR_STYLES[way],
        )
        drawn += (speedup for speedup in speedups if not isnan(speedup))
    set_logarithmic(axes, drawn, "x")
    axes.set_xlabel("speed-up of nkblas run over plain Python", **LABEL_STYLE)
    axes.set_yticks(range(len(measured)), [result.name for result in measured])
    axes.invert_yaxis()

    add_legend(axes, 8)
    text_above(axes, "geometric means", 10, x=1, ha="right", style="italic", **LABEL_STYLE)
    text_above(axes, machine, 30, **LABEL_STYLE)
    text_above(axes, title, 46, fontsize=12, weight="bold")
    return figure


def plot(results: Sequence[ProgramResult], machine: str, title: str, path: str) -> None:
    """Draw the figure into a PNG file."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    draw(results, machine, title).savefig(path, dpi=180, bbox_inches="tight", pad_inches=0.1)
