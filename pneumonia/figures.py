"""Figures: the only place that draws. SVG for curves, PNG for images.

In: arrays and labels. Out: the bytes of a file, the same bytes for the same input: no date, no
random ids, no global state. Colours are Okabe and Ito's, told apart by the colour-blind, and
every line has its own dash too; maps use viridis, whose lightness is even.
"""

import io
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

Array = NDArray[np.float64]
Line = tuple[Array, Array]
"""x and y of a curve."""
Form = Literal["svg", "png"]  # of a curve: sharp at any size, or for a page without SVG

INK, SOFT, PALE = "#1b2733", "#55636f", "#9aa5b1"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
MAP_COLOURS = "viridis"
_PANEL_DPI, _CURVE_DPI = 100, 130
_SHORT_LABEL = 24  # letters of which two fit side by side under a curve
_MARK: Any = {"markersize": 6.5, "markeredgecolor": "white", "markeredgewidth": 1.2}
_LOCK = threading.Lock()
_STYLE: Any = {  # Any: Matplotlib types its keys one by one
    "font.family": "DejaVu Sans",  # comes with Matplotlib: no font of the machine changes a byte
    "font.size": 8.5,
    "axes.edgecolor": PALE,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#e6eaee",
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": PALE,
    "ytick.color": PALE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "legend.frameon": False,
    "lines.linewidth": 1.7,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "path",
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "svg.hashsalt": "pneumonia",
}


class Interval(NamedTuple):
    """A row of a forest plot; a value of None is drawn as too small, its note beside it."""

    label: str
    value: float | None
    low: float | None
    high: float | None
    note: str = ""


def learning_curves(
    losses: Mapping[str, Mapping[str, Line]],
    aurocs: Mapping[str, Line],
    best: Mapping[str, int],
    form: Form = "svg",
) -> bytes:
    """Loss of train and val, and AUROC on val, by epoch, a colour per model.

    Args:
        losses: per model the lines `train` and `val`.
        aurocs: per model.
        best: per model the place on its lines of the epoch that was kept, which is marked.
    """
    with _drawing(4.4, 4.6, rows=2) as (figure, axes):
        top, bottom = axes
        for i, (model, lines) in enumerate(losses.items()):
            colour = _colour(i)
            top.plot(*lines["train"], color=colour, linestyle=(0, (1.5, 1.2)), linewidth=1.3)
            marked: Any = {"color": colour, "marker": "o", "markevery": [best[model]], **_MARK}
            top.plot(*lines["val"], label=model, **marked)
            bottom.plot(*aurocs[model], label=model, **marked)
        top.set_ylabel("log loss (dotted: train)")
        bottom.set(xlabel="epoch", ylabel="AUROC on val")
        for axis in axes:
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        _legend(figure, bottom)
        return _curve(figure, form)


def roc_curves(curves: Mapping[str, Line], points: Mapping[str, tuple[float, float]]) -> bytes:
    """Sensitivity over 1 - specificity, the operating point marked."""
    with _drawing(4.0, 3.9) as (figure, (axis,)):
        axis.plot([0, 1], [0, 1], color=PALE, linewidth=0.9)
        _curves(axis, curves, points)
        axis.set(xlabel="1 \N{MINUS SIGN} specificity", ylabel="sensitivity")
        _unit_square(axis)
        _legend(figure, axis)
        return _svg(figure)


def precision_recall_curves(
    curves: Mapping[str, Line], points: Mapping[str, tuple[float, float]], prevalence: float
) -> bytes:
    """Precision (PPV) over sensitivity; the line below is what calling everyone gives."""
    with _drawing(4.0, 3.9) as (figure, (axis,)):
        axis.axhline(prevalence, color=PALE, linewidth=0.9)
        # precision holds back to the recall before it: what the step sum adds up
        _curves(axis, curves, points, drawstyle="steps-pre")
        axis.set(xlabel="sensitivity", ylabel="precision (PPV)")
        _unit_square(axis)
        _legend(figure, axis)
        return _svg(figure)


def calibration_curves(curves: Mapping[str, Line]) -> bytes:
    """Observed share of positives over mean probability, a dot per bin of equal mass."""
    with _drawing(4.0, 3.9) as (figure, (axis,)):
        axis.plot([0, 1], [0, 1], color=PALE, linewidth=0.9)
        for i, (name, (probability, observed)) in enumerate(curves.items()):
            axis.plot(probability, observed, marker="o", markersize=3.5, label=name, **_line(i))
        axis.set(xlabel="predicted probability", ylabel="observed share of positives")
        _unit_square(axis)
        _legend(figure, axis)
        return _svg(figure)


def decision_curves(
    threshold: Array, benefits: Mapping[str, Array], call_all: Array, highest: float
) -> bytes:
    """Net benefit over the threshold probability, with calling everyone and calling no one.

    Args:
        highest: largest net benefit there can be, the prevalence.
    """
    with _drawing(4.0, 3.9) as (figure, (axis,)):
        axis.plot(threshold, call_all, color=PALE, linewidth=1.2, label="call everyone")
        axis.axhline(0, color=INK, linewidth=0.9, label="call no one")
        for i, (name, benefit) in enumerate(benefits.items()):
            axis.plot(threshold, benefit, label=name, **_line(i))
        axis.set(xlabel="threshold probability", ylabel="net benefit per image")
        axis.set(xlim=(0, float(threshold.max())), ylim=(-0.15 * highest, 1.05 * highest))
        axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        _legend(figure, axis)
        return _svg(figure)


def forest(
    groups: Mapping[str, Sequence[Interval]], mean: float | None, label: str, form: Form = "svg"
) -> bytes:
    """Values with intervals by subgroup, grouped under headings.

    Args:
        groups: per heading its rows; an empty heading is left out.
        mean: a line to compare with, all images together.
        label: of the axis.
    """
    lines: list[Interval | str] = []
    for heading, rows in groups.items():
        lines += [heading, *rows] if heading else rows
    with _drawing(4.4, 0.5 + 0.235 * len(lines)) as (figure, (axis,)):
        for place, line in enumerate(lines):
            if not isinstance(line, str):
                _interval(axis, place, line)
        if mean is not None:
            axis.axvline(mean, color=COLOURS[0], linewidth=0.9, zorder=0)
        names = [line if isinstance(line, str) else f"   {line.label}" for line in lines]
        axis.set_yticks(range(len(lines)), names)
        for tick, line in zip(axis.get_yticklabels(), lines, strict=True):
            tick.set_fontweight("bold" if isinstance(line, str) else "normal")
        axis.set_ylim(len(lines) - 0.4, -0.6)
        axis.grid(visible=False, axis="y")
        axis.tick_params(axis="y", length=0)
        # of the values alone: ticks that follow the room left come after the layout made room
        axis.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], min_n_ticks=3))
        axis.set_xlabel(label)
        return _curve(figure, form)


def histogram(values: Mapping[str, Array], label: str, bins: int = 24) -> bytes:
    """Distributions of values in [0, 1], outlined."""
    edges = np.linspace(0, 1, bins + 1).tolist()
    with _drawing(4.0, 2.3) as (figure, (axis,)):
        for i, (name, column) in enumerate(values.items()):
            line: Any = {"color": COLOURS[i], "linestyle": DASHES[i], "label": name}
            axis.hist(column, bins=edges, histtype="stepfilled", color=COLOURS[i], alpha=0.3)
            axis.hist(column, bins=edges, histtype="step", **line)
        axis.set(xlabel=label, ylabel="images", xlim=(0, 1))
        _legend(figure, axis)
        return _svg(figure)


def cam_panel(
    image: NDArray[np.uint8],
    heat: NDArray[np.float32],
    boxes: Array,
    limits: tuple[float, float],
) -> bytes:
    """An image with its boxes, and again under its map with the map's scale, as PNG.

    Args:
        image: (side, side).
        heat: (side, side) contribution to the logit.
        boxes: (n, 4) x, y, width, height in pixels of the image.
        limits: values at the ends of the colour scale, the same for all panels of a model.
    """
    low, high = limits if limits[0] < limits[1] else (limits[0] - 1, limits[1] + 1)
    with _styled(grid=False):
        figure = Figure(figsize=(5.0, 2.36), dpi=_PANEL_DPI)
        plain = figure.add_axes((0.004, 0.01, 0.436, 0.98))
        mapped = figure.add_axes((0.448, 0.01, 0.436, 0.98))
        bar = figure.add_axes((0.897, 0.06, 0.02, 0.88))
        for axis in (plain, mapped):
            axis.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="bilinear")
            axis.set_axis_off()
        shown = mapped.imshow(heat, cmap=MAP_COLOURS, vmin=low, vmax=high, alpha=0.55)
        for axis in (plain, mapped):
            for x, y, width, height in boxes:
                outline = Rectangle((x - 0.5, y - 0.5), width, height, fill=False)
                outline.set(edgecolor="white", linewidth=1.1)
                outline.set_path_effects([withStroke(linewidth=2.4, foreground=INK)])
                axis.add_patch(outline)
        figure.colorbar(shown, cax=bar)
        bar.tick_params(labelsize=7, length=2, pad=2)
        bar.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], min_n_ticks=3))
        return _png(figure)


def image_png(image: NDArray[np.uint8]) -> bytes:
    """A grey image (rows, columns), one pixel for one, as PNG."""
    with _styled():
        rows, columns = image.shape
        figure = Figure(figsize=(columns / _PANEL_DPI, rows / _PANEL_DPI), dpi=_PANEL_DPI)
        figure.figimage(image, cmap="gray", vmin=0, vmax=255)
        return _png(figure)


@contextmanager
def _styled(*, grid: bool = True) -> Iterator[None]:
    """This module's style, one drawing at a time: Matplotlib's settings are the process's."""
    with _LOCK, mpl.rc_context({**_STYLE, "axes.grid": grid}):
        yield


@contextmanager
def _drawing(
    width: float, height: float, rows: int = 1
) -> Iterator[tuple[Figure, tuple[Axes, ...]]]:
    """A figure of inches in this module's style, its axes one below the other."""
    with _styled():
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, tuple(np.ravel(figure.subplots(rows, 1, sharex=True)))


def _curves(
    axis: Axes,
    curves: Mapping[str, Line],
    points: Mapping[str, tuple[float, float]],
    *,
    drawstyle: Literal["default", "steps-pre"] = "default",
) -> None:
    for i, (name, (x, y)) in enumerate(curves.items()):
        axis.plot(x, y, drawstyle=drawstyle, label=name, **_line(i))
        if name in points:
            axis.plot(*points[name], marker="o", color=_colour(i), zorder=5, **_MARK)


def _interval(axis: Axes, place: int, row: Interval) -> None:
    if row.value is None:
        middle = axis.get_yaxis_transform()
        axis.text(0.02, place, row.note, transform=middle, va="center", color=SOFT, fontsize=7)
        return
    if row.low is not None and row.high is not None:
        axis.plot([row.low, row.high], [place, place], color=INK, linewidth=1.3)
    axis.plot(row.value, place, marker="s", markersize=4, color=INK)


def _line(i: int) -> dict[str, Any]:
    return {"color": _colour(i), "linestyle": DASHES[i % len(DASHES)]}


def _colour(i: int) -> str:
    return COLOURS[i % len(COLOURS)]


def _unit_square(axis: Axes) -> None:
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")


def _legend(figure: Figure, axis: Axes) -> None:
    handles, labels = axis.get_legend_handles_labels()
    columns = 2 if max(map(len, labels), default=0) <= _SHORT_LABEL else 1
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, handlelength=2.4)


def _curve(figure: Figure, form: Form) -> bytes:
    return _svg(figure) if form == "svg" else _png(figure, dpi=_CURVE_DPI)


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _png(figure: Figure, dpi: int = _PANEL_DPI) -> bytes:
    buffer, told = io.BytesIO(), {"Software": None}
    figure.savefig(buffer, format="png", dpi=dpi, metadata=told, pil_kwargs={"optimize": True})
    return buffer.getvalue()
