"""The look of all figures: colors, fonts, and class names of bounded length.

Figures are made without pyplot, which keeps every figure in memory. Matplotlib is imported when the first one is made.
"""

import contextlib
import itertools
import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, LINE = "#24292f", "#626b75", "#d5dae0"  # text, secondary text, grid
BLUE, ORANGE = "#2b66c4", "#c4620a"
# The same five for readers whose system is dark
DARK = {INK: "#e6edf3", MUTED: "#9aa4ae", LINE: "#343b44", BLUE: "#6ba3f5", ORANGE: "#f0994a"}
FILL = "#2b66c5"  # color of heatmaps: white text on it is readable
LONGEST = 20  # longest class name, in Latin characters
ALL_CLASSES = 40  # a figure with more classes than this shows some of them
SOME_CLASSES = 20  # as many as that figure shows

RC = {
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # a class name may contain a $
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 10,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "figure.constrained_layout.wspace": 0.06,  # the ends of two axes do not touch
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
}


@contextlib.contextmanager
def _this_style() -> Iterator[None]:
    from matplotlib import style

    with style.context(["default", RC]):
        yield


styled = _this_style()  # a decorator: a function makes or saves a figure in this style, not in that of a matplotlibrc


def new_figure(
    width: float, height: float, columns: int = 1, rows: int = 1, **options: Any
) -> "tuple[Figure, list[Axes]]":
    """A figure of `width` × `height` inches and its axes, row by row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).flat)


def bars(axes: "Axes", values: Any, color: str) -> None:
    """A horizontal bar for each value, from top to bottom."""
    axes.barh(range(len(values)), values, height=0.7, color=color)
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.tick_params(length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["bottom"].set_visible(False)


def short(name: str) -> str:
    """A class name, cut if it is too long for a figure. A character of East Asia takes the room of two."""
    ends = list(itertools.accumulate(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in name))
    if not ends or ends[-1] <= LONGEST:
        return name
    return name[: sum(end < LONGEST for end in ends)] + "…"


def percent(share: float, digits: int = 2) -> str:
    """A share in percent for a sentence, with a space that does not break."""
    return f"{share * 100:.{digits}f}\N{NO-BREAK SPACE}%"
