"""The figure of a dataset: images per class."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stages.plots._style import ALL_CLASSES, BLUE, MUTED, ORANGE, bars, new_figure, short, styled

SPLITS = {"train": BLUE, "validation": MUTED, "test": ORANGE}
POINTS = 500  # at most, of a line


@styled
def distribution(counts: dict[str, dict[str, int]]) -> Figure:
    """Images per class, a panel for each split: {split: {class: images}}; many classes as a line by rank."""
    names = list(next(iter(counts.values())))
    many = len(names) > ALL_CLASSES
    figure, panels = new_figure(
        2.8 * len(counts), 2.9 if many else 0.9 + 0.21 * len(names), columns=len(counts), sharey=not many
    )
    for axes, (split, images) in zip(panels, counts.items(), strict=True):
        color = SPLITS.get(split, BLUE)
        sizes = list(images.values())
        if many:
            ranks = np.unique(np.linspace(0, len(sizes) - 1, POINTS).round().astype(int))
            axes.plot(ranks + 1, np.sort(sizes)[::-1][ranks], color=color)
            axes.set(xlabel="classes, largest first", ylabel="images", ylim=(0, None))
            axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.yaxis.set_major_formatter("{x:,.0f}")
        else:
            bars(axes, sizes, color)
        axes.set_title(f"{split}: {sum(sizes):,} images", loc="left")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.xaxis.set_major_formatter("{x:,.0f}")
    if not many:
        panels[0].set_yticks(range(len(names)), [short(name) for name in names])
    return figure
