"""Figures: for each suite, dtype and number of threads, one PNG that reads well in a README."""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from math import isnan
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation

from .record import Record, Result
from .report import (
    geometric_mean,
    of_roof,
    over_product,
    peers,
    ratio,
    row,
    speed,
    table,
    title,
)
from .suites import PEERS, SUITES, Case

NAMES = {
    "nkblas": "nkblas",
    "numpy": "NumPy",
    "mkl": "MKL",
    "torch": "PyTorch",
    "jax": "JAX",
    "product": "its own product",
}

LINE: dict[str, Any] = {
    "linewidth": 1,
    "markersize": 5,
    "markeredgecolor": "white",
    "markeredgewidth": 0.6,
    "zorder": 3,
    "clip_on": False,
}

LINES: dict[str, dict[str, Any]] = {
    "nkblas": LINE | {"color": "#d55e00", "marker": "o", "markersize": 6, "zorder": 4},
    "numpy": LINE | {"color": "#0072b2", "marker": "s"},
    "mkl": LINE | {"color": "#009e73", "marker": "^"},
    "torch": LINE | {"color": "#9467bd", "marker": "D", "markersize": 4},
    "jax": LINE | {"color": "#56b4e9", "marker": "v"},
    "product": LINE | {"color": "#999999", "marker": "P"},
}
"""Colours that the colour-blind can tell apart, and markers for print in grey."""

GREY: dict[str, Any] = {"fontsize": 8.5, "color": "#555555"}

TICKS = (
    (2.5, (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.5, 1.7, 2, 2.5)),
    (12, (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10)),
    (120, (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)),
    (float("inf"), tuple(x * 10.0**exponent for exponent in range(-6, 5) for x in (1, 3))),
)
"""On a logarithmic axis: up to which ratio of its ends, which ticks."""


def plot(record: Record, folder: str) -> Iterator[Path]:
    """Draw every table of `record` into `folder`; yields the files as they are written."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for parts, results in groupby(record.results, key=table):
        path = Path(folder, "-".join(map(str, parts)).replace(" ", "-") + ".png")
        figure = draw(list(results), record.header)
        figure.savefig(path, dpi=180, bbox_inches="tight", pad_inches=0.1)
        yield path


def draw(results: Sequence[Result], header: dict[str, str]) -> Figure:
    """One table: above, shares of what bounds the cases, or speeds; below, speed-ups."""
    figure = Figure(figsize=(9, 5.4))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(6, 5))
    figure.subplots_adjust(hspace=0.26)
    first, groups = results[0], in_groups(results)
    names = ["nkblas", *peers(first)]
    for axes in (above, below):
        plain_axes(axes)

    suite = SUITES[first.suite]
    value = speed if suite.by_dtype else of_roof
    for name in names:
        _lines(above, name, NAMES[name], groups, partial(value, name))
    values = [value(name, result) for result in results for name in names if name in result.gflops]
    if suite.by_dtype or median(values) < 0.1:
        _logarithmic(above, values)
    else:
        above.set_ylim(0, max(1, *values) if max(values) > 0.6 else max(values))
    if suite.by_dtype:
        above.set_ylabel("$10^9$ operations a second", **GREY)
    else:
        above.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
        roof = "of FMA peak or bandwidth" if suite.in_memory else "of the FMA peak"
        above.set_ylabel(roof, **GREY)

    below.axhline(1, color="black", linewidth=1, zorder=2)
    speed_ups: dict[str, Callable[[Result], float]] = {x: partial(ratio, x) for x in names[1:]}
    if first.over_product:
        speed_ups["product"] = over_product
    shown: list[float] = [1]
    for name, speed_up in speed_ups.items():
        found = [x for x in map(speed_up, results) if not isnan(x)]
        _lines(below, name, f"over {NAMES[name]}: {geometric_mean(found):.2f}", groups, speed_up)
        shown += found
    _logarithmic(below, shown)
    below.set_ylabel("speed-up of nkblas", **GREY)
    text_above(below, "geometric means", 20, x=1, ha="right", style="italic", **GREY)

    places = [place for group in groups for place in group.places]
    labels = [label for group in groups for label in group.labels]
    below.set_xlim(-0.5, places[-1] + 0.5)
    below.set_xticks(places, labels, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    for group in groups:
        middle = (group.places[0] + group.places[-1] + 1) / (2 * (places[-1] + 1))
        text_above(above, group.name, 7, x=middle, ha="center", **GREY)

    top = 24 if any(group.name for group in groups) else 8
    machine = _machine(first, header)
    legend(below, 4)
    legend(above, top)
    text_above(above, "\n".join(machine), top + 22, linespacing=1.25, **GREY)
    text_above(above, title(first), top + 26 + 12 * len(machine), fontsize=12, weight="bold")
    return figure


class Group(NamedTuple):
    """Cases of a suite that have something in common, and their places on the x axis."""

    name: str
    results: list[Result]
    places: list[int]

    @property
    def labels(self) -> list[str]:
        """For each case what tells it from the others of the group, and a bit more."""
        if SUITES[self.results[0].suite].by_dtype:
            return [row(result) for result in self.results]
        cases = [result.case for result in self.results]
        if all(case == Case(case.m, case.m, case.m) for case in cases):
            return [str(case.m) for case in cases]
        if self.name and len({case.expression for case in cases}) == 1:
            return [case.size for case in cases]
        return [str(case) for case in cases]


def in_groups(results: Sequence[Result]) -> list[Group]:
    """Results by the groups of their suite, with a gap between two groups."""
    names = {
        case: name for name, cases in SUITES[results[0].suite].groups.items() for case in cases
    }
    found: list[Group] = []
    place = 0
    for name, members in groupby(results, key=lambda result: names.get(result.case, "")):
        group = list(members)
        found.append(Group(name, group, list(range(place, place + len(group)))))
        place += len(group) + 1
    return found


def _lines(
    axes: Axes,
    contender: str,
    label: str,
    groups: Sequence[Group],
    value: Callable[[Result], float],
) -> None:
    look, shift = LINES[contender], 0.0
    if SUITES[groups[0].results[0].suite].by_dtype:
        look = look | {"linewidth": 0}  # nothing lies between two dtypes: room for side by side
        shift = 0.14 * (list(LINES).index(contender) - len(PEERS) // 2)
    for group in groups:
        values = [value(result) for result in group.results]
        axes.plot([place + shift for place in group.places], values, label=label, **look)
        label = ""  # in the legend once


def _logarithmic(axes: Axes, values: Sequence[float]) -> None:
    low, high = min(values), max(values)
    axes.set_yscale("log")
    axes.set_ylim(low / 1.05, high * 1.05)
    ticks = next(ticks for span, ticks in TICKS if high <= span * low)
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def plain_axes(axes: Axes) -> None:
    """Lines across, and no frame."""
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.tick_params(length=0, labelsize=8.5, colors=GREY["color"])
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def text_above(axes: Axes, text: str, points: float, x: float = 0, **look: Any) -> None:
    """A text that many points above the axes."""
    axes.annotate(text, (x, 1), (0, points), "axes fraction", "offset points", **look)


def legend(axes: Axes, points: float, of: Sequence[Axes] = (), columns: int = 5) -> None:
    """What is in some axes, in these alone if there are none, in a row that many points above."""
    found: dict[str, Any] = {}
    for each in of or (axes,):
        for handle, label in zip(*each.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if not found:
        return
    shift = ScaledTranslation(0, points / 72, axes.figure.dpi_scale_trans)
    axes.legend(
        found.values(),
        found.keys(),
        loc="lower left",
        bbox_to_anchor=(0, 1),
        bbox_transform=axes.transAxes + shift,
        borderpad=0,
        borderaxespad=0,
        ncols=columns,
        frameon=False,
        fontsize=8.5,
    )


def _machine(first: Result, header: dict[str, str]) -> list[str]:
    """The machine and the versions, in lines that fit."""
    threads = f"{first.threads} thread" + "s" * (first.threads > 1)
    versions = [f"{NAMES[name]} {header[name]}" for name in ("nkblas", *peers(first))]
    return textwrap.wrap(" · ".join([header["cpu"], header["isa"], threads, *versions]), 120)
