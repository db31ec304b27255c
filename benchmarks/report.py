"""From measurements to tables, plots, and the README's tables, which nobody types.

``python benchmarks/report.py`` writes the tables of ``results/*.json`` into the README.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peers import FLOOR, OURS

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
BEGIN, END = "<!-- begin {name}: written by benchmarks/report.py -->", "<!-- end {name} -->"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table, its columns as wide as they must be and the numbers to the right."""
    table = [list(header), *map(list, rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return (
            " | ".join(["| " + first[0].ljust(first[1]), *(c.rjust(w) for c, w in others)]) + " |"
        )

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(table[0]), "| " + " | ".join(rule) + " |", *map(line, table[1:])])


def matrix_table(result: dict[str, Any]) -> str:
    """Return the table of the ``matrix`` cases: ours, against the floor, against each peer."""
    cases = [case for case in result["cases"] if case["group"] == "matrix"]
    peers = list(dict.fromkeys(n for c in cases for n in c["candidates"] if n not in (OURS, FLOOR)))
    header = ["case", "entries", "W, MB", "ours, ms", "filling, ms", "ours/filling", "peak/W"]
    rows = []
    for case in cases:
        ours, floor = case["candidates"][OURS], case["candidates"][FLOOR]
        row = [
            case["name"],
            f"{case['entries']}",
            f"{case['bytes'] / 1e6:.2f}",
            milliseconds(ours),
            milliseconds(floor),
            f"{ours['median'] / floor['median']:.2f}",
            f"{ours['peak_bytes'] / case['bytes']:.2f}",
        ]
        for name in peers:
            peer = case["candidates"].get(name, {"skipped": "not run"})
            if "skipped" in peer:
                row.append(peer["skipped"])
            else:
                ratio = peer["median"] / ours["median"]
                row.append(f"{milliseconds(peer)} ({ratio:.0f}x)")
        rows.append(row)
    return markdown([*header, *(f"{name}, ms" for name in peers)], rows)


def milliseconds(timing: dict[str, float]) -> str:
    """Return a median with the digits that its spread leaves."""
    return f"{timing['median']:.3g}"


TABLES = {"matrix": matrix_table}


def tables(result: dict[str, Any]) -> str:
    """Return every table that the result has cases for."""
    groups = dict.fromkeys(case["group"] for case in result["cases"])
    return "\n\n".join(TABLES[group](result) for group in groups)


def caption(result: dict[str, Any]) -> str:
    """Return where and with what it was measured, in a sentence."""
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, "
        f"Python {machine['python']}, {versions}; {result['date']}."
    )


def with_tables(text: str, results: Path) -> str:
    """Return the README's text with each marked table made anew: one a results file."""
    measured = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))
    ]
    for name, table in TABLES.items():
        begin, end = BEGIN.format(name=name), END.format(name=name)
        before, found, rest = text.partition(begin)
        if not found:
            continue
        _, closed, after = rest.partition(end)
        if not closed:
            raise ValueError(f"README.md: {begin} without {end}")
        tables = [
            f"\n\n{table(result)}\n\n{caption(result)}\n\n"
            for result in measured
            if any(case["group"] == name for case in result["cases"])
        ]
        text = "".join([before, begin, *tables, end, after])
    return text


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw each candidate's time as a multiple of ours, a bar a candidate, a group a case."""
    from matplotlib.figure import Figure

    names = [n for n in dict.fromkeys(n for c in result["cases"] for n in c["candidates"])]
    others = [name for name in names if name != OURS]
    figure = Figure(figsize=(2 + 2 * len(result["cases"]), 4), layout="constrained")
    axes = figure.subplots()
    for position, name in enumerate(others):
        for place, case in enumerate(result["cases"]):
            timing = case["candidates"].get(name, {})
            if "median" in timing:
                ratio = timing["median"] / case["candidates"][OURS]["median"]
                x = place + (position - (len(others) - 1) / 2) * 0.8 / len(others)
                bar = axes.bar(
                    x, ratio, 0.75 / len(others), color=f"C{position}",
                    label=None if place else name,
                )  # fmt: skip
                axes.bar_label(bar, [f"{ratio:.2g}"])
    axes.axhline(1, color="black", linewidth=1)
    axes.set_yscale("log")
    axes.set_ylabel(f"time / {OURS}'s")
    axes.set_xticks(range(len(result["cases"])), [case["name"] for case in result["cases"]])
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    README.write_text(
        with_tables(README.read_text(encoding="utf-8"), HERE / "results"), encoding="utf-8"
    )
