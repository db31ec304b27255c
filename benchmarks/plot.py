"""The plot: how many times as long the best peer takes, a bar a case."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from products import GROUPS
from tables import TITLES, best, group, ratio

TICKS = (0.01, 0.1, 0.2, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 20, 50, 100, 200, 500, 1000)


def plot(result: dict[str, Any], path: Path, groups: Sequence[str] = (*GROUPS, "matrix")) -> None:
    """Draw the best peer's time over ours, the cases of a group under each other.

    Bars begin at 1, where both are equally fast: to the right we are faster.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, NullLocator

    bars: list[tuple[float, str, float, str, str]] = []  # y, case, ratio, peer, colour
    heads: list[tuple[float, str]] = []  # y, group
    y = 0.0
    for index, name in enumerate(groups):
        cases = [(case, ratio(case), best(case)) for case in group(result, name)]
        cases = [(case, times, found) for case, times, found in cases if times and found]
        if not cases:
            continue
        heads.append((y, TITLES[name]))
        for line, (case, times, found) in enumerate(cases, start=1):
            bars.append((y + line, case["name"], times, found[0], f"C{index}"))
        y += len(cases) + 1.4
    ratios = [times for _, _, times, _, _ in bars]
    least, most = min([0.9, *ratios]), max([2.0, *ratios])
    figure = Figure(figsize=(9, 1 + 0.23 * y), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    # Room for what is written at the end of the longest bar.
    axes.set_xlim(least * 0.95, most * (most / least) ** 0.5)
    for place, _, times, peer, colour in bars:
        axes.barh(place, times - 1, left=1, color=colour, height=0.75)
        axes.annotate(
            f"{times:.2f}  {peer}",
            (max(times, 1), place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    for place, title in heads:
        axes.annotate(
            title,
            (0, place),
            xycoords=axes.get_yaxis_transform(),
            xytext=(-4, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=9,
            fontweight="bold",
        )
    axes.axvline(1, color="black", linewidth=1)
    ticks = [tick for tick in TICKS if least * 0.95 <= tick <= most]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks([bar[0] for bar in bars], [bar[1] for bar in bars], fontsize=8)
    axes.set_ylim(max(y, 1), -0.8)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel("the best peer's time over convarith's; at the bar who that is")
    # Without the version in it, the same results make the same file.
    metadata = {"Software": None} if path.suffix == ".png" else None
    figure.savefig(path, dpi=110, metadata=metadata)
