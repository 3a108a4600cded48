"""A picture for each group: medians as bars, lowest and highest as whiskers, targets as red lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.rows import Row, shown

_WIDTH, _BAR_HEIGHT, _PANEL_HEIGHT = 10.0, 0.32, 0.9  # inches


def draw(rows: Sequence[Row], group: str, path: Path) -> bool:
    """Draw what there is of a group, a panel for the ratios and one for each unit, into a PNG file.

    Returns:
        False where there is nothing to draw.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    panels = _panels([row for row in rows if row.group == group and row.values])
    if not panels:
        return False
    heights = [_PANEL_HEIGHT + _BAR_HEIGHT * len(bars) for bars in panels.values()]
    figure, axes = pyplot.subplots(
        *(len(panels), 1),
        figsize=(_WIDTH, sum(heights)),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for (title, bars), axis in zip(panels.items(), axes[:, 0], strict=True):
        medians = [median for _, median, _, _, _ in bars]
        places = range(len(bars))
        whiskers = [
            [max(0.0, median - low) for _, median, low, _, _ in bars],
            [max(0.0, high - median) for _, median, _, high, _ in bars],
        ]
        axis.barh(places, medians, xerr=whiskers, height=0.7, color="#7aa6c2", ecolor="#444444", capsize=2)
        axis.set_yticks(places, [name for name, *_ in bars], fontsize=8)
        axis.invert_yaxis()
        axis.margins(x=0.12)
        for place, (_, median, _, high, target) in enumerate(bars):
            axis.annotate(
                shown(median), (high, place), (4, 0), textcoords="offset points", va="center", size=7
            )
            if target is not None:
                axis.plot([target, target], [place - 0.42, place + 0.42], color="#c0392b", linewidth=2)
        axis.set_title(title, fontsize=9, loc="left")
        axis.tick_params(axis="x", labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return True


_Bar = tuple[str, float, float, float, "float | None"]


def _panels(rows: Sequence[Row]) -> dict[str, list[_Bar]]:
    """The bars of each panel, by its title: name, median, lowest, highest, target."""
    panels: dict[str, list[_Bar]] = {}
    for row in rows:
        if row.median_ratio is not None:
            target = row.target if row.of_ratio else None
            bar = (row.name, row.median_ratio, min(row.ratios), max(row.ratios), target)
            panels.setdefault(f"ratio to: {row.reference}", []).append(bar)
    for row in rows:
        assert row.median is not None
        target = None if row.of_ratio else row.target
        bar = (row.name, row.median, min(row.values), max(row.values), target)
        panels.setdefault(row.unit, []).append(bar)
    return panels
