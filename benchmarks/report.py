"""The README's benchmark tables and plots, which nobody types.

``python benchmarks/report.py`` writes the tables of ``results/*.json`` into the README, between
its markers, and draws the plots that they refer to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import network_tables
import products
from gpu import plot as gpu_plot
from gpu import tables as gpu_tables
from gpu.trials import GROUPS as GPU_GROUPS
from plot import plot
from tables import TITLES, calls_table, group, matrix_table, means, product_table

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
#: A share of the cores that, taken by others, is told.
NOTABLE = 0.05
BEGIN, END = "<!-- begin {name}: written by benchmarks/report.py -->", "<!-- end {name} -->"


def device(result: dict[str, Any]) -> str:
    """Return what a result was measured on, "cpu" or "cuda"."""
    return result.get("device", "cpu")


def caption(result: dict[str, Any]) -> str:
    """Return where and with what it was measured, in a sentence."""
    if device(result) == "cuda":
        return gpu_tables.caption(result)
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


def cuda_part(result: dict[str, Any], stem: str) -> str:
    """Return the tables of a GPU's cases, one a group, below their plot."""
    parts = [f"![The best peer's time over ours, by case](docs/{stem}.png)"]
    parts.append(gpu_tables.means(result))
    parts.append(
        "Below: ours in ms · the best peer's time over ours · our % of the roofline (and of a copy "
        "of as many bytes, timed beside)."
    )
    for title, table in gpu_tables.brief(result):
        parts += [f"**{title}**", table]
    return "\n\n".join(part for part in parts if part)


def networks_part(results: Path) -> list[str]:
    """Return the tables of the networks, one a file of ``results/networks``."""
    parts = []
    for result in measured(results / "networks").values():
        machine = result["machine"]
        where = machine.get("card") or f"{machine['processor']}, {machine['cores']} cores"
        versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        parts.append(f"{network_tables.table(result)}\n\n{where}, {versions}; {result['date']}.")
    return parts


class Part(NamedTuple):
    """A part of the README.

    Attributes
    ----------
    device : {"cpu", "cuda"}
    groups : tuple of str
        It is of the results that have a case of these on the device.
    write : callable
        Returns the part, from a result and its file's stem.
    """

    device: str
    groups: tuple[str, ...]
    write: Callable[[dict[str, Any], str], str]


#: By the name in the README's marker.
PARTS = {
    "matrix": Part("cpu", ("matrix",), lambda result, stem: matrix_table(result)),
    "cpu": Part("cpu", products.GROUPS, products_part),
    "calls": Part("cpu", ("calls",), lambda result, stem: calls_table(result)),
    "cuda": Part("cuda", GPU_GROUPS, cuda_part),
}


def measured(results: Path) -> dict[str, dict[str, Any]]:
    """Return every result by its file's stem."""
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(results.glob("*.json"))
    }


def has(result: dict[str, Any], part: Part) -> bool:
    """Return whether a result has a case that the part is of."""
    return device(result) == part.device and any(
        case["group"] in part.groups for case in result["cases"]
    )


def between(text: str, begin: str, end: str, parts: Sequence[str]) -> str:
    """Return a text with parts between two marks, instead of what is there.

    Raises
    ------
    ValueError
        Where the text has not both.
    """
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"README.md: expected {begin} and {end}")
    return "".join([before, begin, *(f"\n\n{part}\n\n" for part in parts), end, after])


def with_tables(text: str, results: Path) -> str:
    """Return the README's text with each marked part made anew: once a results file."""
    for name, part in PARTS.items():
        begin, end = BEGIN.format(name=name), END.format(name=name)
        if begin not in text:
            continue
        parts = [
            f"{part.write(result, stem)}\n\n{caption(result)}"
            for stem, result in measured(results).items()
            if has(result, part)
        ]
        text = between(text, begin, end, parts)
    begin, end = BEGIN.format(name="networks"), END.format(name="networks")
    return between(text, begin, end, networks_part(results)) if begin in text else text


if __name__ == "__main__":
    README.write_text(
        with_tables(README.read_text(encoding="utf-8"), HERE / "results"), encoding="utf-8"
    )
    for stem, result in measured(HERE / "results").items():
        picture = README.parent / "docs" / f"{stem}.png"
        if has(result, PARTS["cpu"]):
            plot(result, picture, products.GROUPS)
        elif has(result, PARTS["cuda"]):
            gpu_plot.plot(result, picture)
