"""The plot of a GPU's measurements: the best peer's time over ours, a mark a precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plot import TICKS
from tables import group, ratio

from gpu.tables import GROUP_TITLES, LABELS
from gpu.trials import GROUPS, PRECISIONS

MARKS = dict(zip(PRECISIONS, "osD^", strict=True))
OWN_BATCH = "each case's own batch"
#: Not what the host takes to call.
PLOTTED = tuple(name for name in GROUPS if name != "calls")


def column_of(case: dict[str, Any]) -> str:
    """Return the title of the column that a case is in: none has a batch of its own above 8."""
    return OWN_BATCH if case["batch"] <= 8 else f"batch {case['batch']}"


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw the ratios, cases under each other and a column a batch; right of 1 we are faster."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, NullLocator

    rows: dict[tuple[str, str], float] = {}  # (group, case): y
    heads: list[tuple[float, str]] = []  # y, group
    y = 0.0
    for name in PLOTTED:
        members = [case for case in group(result, name) if ratio(case)]
        if not members:
            continue
        heads.append((y, GROUP_TITLES[name]))
        for line, case in enumerate(dict.fromkeys(case["name"] for case in members), start=1):
            rows[name, case] = y + line
        y = max(rows.values()) + 1.4
    points = [  # column, y, ratio, precision
        (column_of(case), rows[key], times, case["precision"])
        for case in result["cases"]
        if (key := (case["group"], case["name"])) in rows and (times := ratio(case))
    ]
    columns = sorted({column for column, *_ in points}, key=lambda name: name != OWN_BATCH) or [
        OWN_BATCH
    ]
    least = min([0.5, *(times for _, _, times, _ in points)])
    most = max([2.0, *(times for _, _, times, _ in points)])
    figure = Figure(figsize=(9, 1.4 + 0.23 * y), layout="constrained")
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axes, column in zip(panels, columns, strict=True):
        for index, (precision, mark) in enumerate(MARKS.items()):
            chosen = [p for p in points if p[0] == column and p[3] == precision]
            if chosen:
                axes.scatter(
                    [times for _, _, times, _ in chosen],
                    [place for _, place, _, _ in chosen],
                    marker=mark,
                    s=22,
                    color=f"C{index}",
                    label=LABELS[precision],
                    alpha=0.85,
                )
        axes.set_xscale("log")
        axes.set_xlim(least * 0.9, most * 1.1)
        axes.axvline(1, color="black", linewidth=1)
        ticks = [tick for tick in TICKS if least * 0.9 <= tick <= most * 1.1]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=8)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_title(column, fontsize=9)
        axes.grid(axis="y", linewidth=0.3)
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
    first = panels[0]
    first.set_yticks(list(rows.values()), [case for _, case in rows], fontsize=8)
    first.set_ylim(max(y, 1), -0.8)
    for place, title in heads:
        first.annotate(
            title,
            (0, place),
            xycoords=first.get_yaxis_transform(),
            xytext=(-4, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=9,
            fontweight="bold",
        )
    handles, names = first.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper right", ncols=len(PRECISIONS), fontsize=8)
    figure.supxlabel("the best peer's time over convarith's", fontsize=9)
    # Without the version in it, the same results make the same file.
    metadata = {"Software": None} if path.suffix == ".png" else None
    figure.savefig(path, dpi=110, metadata=metadata)
