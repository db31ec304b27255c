"""The README's benchmark tables and plots, which nobody types.

``python benchmarks/report.py`` writes the tables of ``results/*.json`` into the README, between
its markers, and draws the plots that they refer to.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import products
from plot import plot
from tables import TITLES, calls_table, group, matrix_table, means, product_table

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
#: A share of the cores that, taken by others, is told.
NOTABLE = 0.05
BEGIN, END = "<!-- begin {name}: written by benchmarks/report.py -->", "<!-- end {name} -->"


def caption(result: dict[str, Any]) -> str:
    """Return where and with what it was measured, in a sentence."""
    machine = result["machine"]
    parts = [machine["processor"], f"{machine['cores']} cores"]
    if "threads" in result and result["threads"] != machine["cores"]:
        parts.append(f"on {result['threads']}")
    if "vectors" in machine:
        parts.append(machine["vectors"])
    parts += [machine["system"], f"Python {machine['python']}"]
    parts += [f"{name} {version}" for name, version in machine["versions"].items()]
    text = f"{', '.join(parts)}; "
    if "limits" in result:
        limits = result["limits"]
        text += (
            f"measured peak {limits['gflops']:.0f} GFLOP/s, "
            f"copying {limits['gbytes_per_second']:.0f} GB/s; "
        )
    if result.get("others", 0) > NOTABLE:
        text += f"others had {100 * result['others']:.0f} % of the cores; "
    return f"{text}{result['date']}."


def products_part(result: dict[str, Any], stem: str) -> str:
    """Return the tables of all products, below their plot."""
    parts = [f"![The best peer's time over ours, by case](docs/{stem}.png)", means(result)]
    for name in products.GROUPS:
        if group(result, name):
            parts += [f"**{TITLES[name]}**", product_table(result, name, brief=True)]
    return "\n\n".join(parts)


#: The README's parts by marker: the groups that they are of, and what writes them.
PARTS: dict[str, tuple[tuple[str, ...], Callable[[dict[str, Any], str], str]]] = {
    "matrix": (("matrix",), lambda result, stem: matrix_table(result)),
    "cpu": (products.GROUPS, products_part),
    "calls": (("calls",), lambda result, stem: calls_table(result)),
}


def measured(results: Path) -> dict[str, dict[str, Any]]:
    """Return every result by its file's stem."""
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(results.glob("*.json"))
    }


def has(result: dict[str, Any], groups: tuple[str, ...]) -> bool:
    """Return whether a result has a case of one of the groups."""
    return any(case["group"] in groups for case in result["cases"])


def with_tables(text: str, results: Path) -> str:
    """Return the README's text with each marked part made anew: once a results file."""
    for name, (groups, part) in PARTS.items():
        begin, end = BEGIN.format(name=name), END.format(name=name)
        before, found, rest = text.partition(begin)
        if not found:
            continue
        _, closed, after = rest.partition(end)
        if not closed:
            raise ValueError(f"README.md: {begin} without {end}")
        parts = [
            f"\n\n{part(result, stem)}\n\n{caption(result)}\n\n"
            for stem, result in measured(results).items()
            if has(result, groups)
        ]
        text = "".join([before, begin, *parts, end, after])
    return text


if __name__ == "__main__":
    README.write_text(
        with_tables(README.read_text(encoding="utf-8"), HERE / "results"), encoding="utf-8"
    )
    for stem, result in measured(HERE / "results").items():
        if has(result, products.GROUPS):
            plot(result, README.parent / "docs" / f"{stem}.png", products.GROUPS)
