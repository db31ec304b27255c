"""From measurements to tables: a group's, and what all groups come to."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import calls
import matrix
import products
from products import DIRECT, FLOOR, OURS, THREADED_FLOOR

TITLES = {
    "transposed": "Transposed convolutions",
    "forward": "Convolutions",
    "kernel_gradient": "Kernel gradients",
    "matrix": "Building W",
    "calls": "Calls",
}


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


def group(result: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the result's cases of a group."""
    return [case for case in result["cases"] if case["group"] == name]


def number(value: float) -> str:
    """Return a time in ms or a percentage with the digits that its spread leaves."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def milliseconds(timing: dict[str, Any]) -> str:
    """Return a median, or why there is none."""
    if "median" in timing:
        return number(timing["median"])
    if "failed" in timing:
        return "failed"
    return timing.get("skipped", "not run")


def best(case: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Return the quickest peer and its timing, or None where none ran."""
    own = (OURS, DIRECT, FLOOR, THREADED_FLOOR)
    peers = {n: t for n, t in case["candidates"].items() if n not in own and "median" in t}
    return min(peers.items(), key=lambda item: item[1]["median"]) if peers else None


def ratio(case: dict[str, Any]) -> float | None:
    """Return the best peer's time over ours, or None where either has none."""
    found, ours = best(case), case["candidates"][OURS]
    return found[1]["median"] / ours["median"] if found and "median" in ours else None


def gflops(case: dict[str, Any], name: str = OURS) -> float:
    """Return the useful operations in a second, in units of 1e9."""
    return case["flops"] / case["candidates"][name]["median"] / 1e6


def of_peak(case: dict[str, Any], limits: dict[str, float]) -> str:
    """Return the percentage of the multiply-add peak, the direct sum's too where it is not ours."""
    if FLOOR in case["candidates"]:
        return "–"  # there it is memory that counts
    text = f"{100 * gflops(case) / limits['gflops']:.0f}"
    if DIRECT in case["candidates"]:
        text += f" (direct {100 * gflops(case, DIRECT) / limits['gflops']:.0f})"
    return text


def of_roofline(case: dict[str, Any], limits: dict[str, float]) -> str:
    """Return the least time by peak and bandwidth over ours, in percent."""
    least = max(case["flops"] / limits["gflops"], case["bytes"] / limits["gbytes_per_second"]) / 1e6
    return f"{100 * least / case['candidates'][OURS]['median']:.0f}"


def product_table(result: dict[str, Any], name: str, *, brief: bool = False) -> str:
    """Return a group's table: ours, the best peer, the limits, the errors (not if `brief`)."""
    cases, limits = group(result, name), result["limits"]
    header = ["case", "ours, ms", "best peer, ms", "ratio", "% of peak"]
    if not brief:
        header += ["% of roofline", "error", "peer's error"]
    floors = [f for f in (FLOOR, THREADED_FLOOR) if any(f in c["candidates"] for c in cases)]
    header += [f"ours/{floor}" for floor in floors]
    rows = []
    for case in cases:
        candidates = case["candidates"]
        found, times = best(case), ratio(case)
        row = [
            case["name"],
            milliseconds(candidates[OURS]),
            f"{milliseconds(found[1])} ({found[0]})" if found else "–",
            f"{times:.2f}" if times else "–",
            of_peak(case, limits),
        ]
        if not brief:
            row += [
                of_roofline(case, limits),
                f"{candidates[OURS]['error']:.1e}",
                f"{found[1]['error']:.1e}" if found else "–",
            ]
        row += [
            f"{candidates[OURS]['median'] / candidates[floor]['median']:.2f}"
            if floor in candidates
            else ""
            for floor in floors
        ]
        rows.append(row)
    return markdown(header, rows)


def everyone(result: dict[str, Any], name: str) -> str:
    """Return each candidate's median and, in brackets, quartiles; or why there is none."""
    cases = group(result, name)
    names = list(dict.fromkeys(n for case in cases for n in case["candidates"]))
    rows = []
    for case in cases:
        row = [case["name"]]
        for candidate in names:
            timing = case["candidates"].get(candidate, {"skipped": ""})
            cell = milliseconds(timing)
            if "median" in timing:
                cell += f" ({number(timing['low'])}-{number(timing['high'])})"
            row.append(cell)
        rows.append(row)
    return markdown(["ms", *names], rows)


def matrix_table(result: dict[str, Any]) -> str:
    """Return the table of the ``matrix`` cases: ours, against the floor, against each peer."""
    cases = group(result, "matrix")
    own = (matrix.OURS, matrix.FLOOR)
    peers = list(dict.fromkeys(n for c in cases for n in c["candidates"] if n not in own))
    header = ["case", "entries", "W, MB", "ours, ms", "filling, ms", "ours/filling", "peak/W"]
    rows = []
    for case in cases:
        ours, floor = (case["candidates"][name] for name in own)
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
            cell = milliseconds(peer)
            if "median" in peer:
                cell += f" ({peer['median'] / ours['median']:.0f}x)"
            row.append(cell)
        rows.append(row)
    return markdown([*header, *(f"{name}, ms" for name in peers)], rows)


def calls_table(result: dict[str, Any]) -> str:
    """Return the table of the ``calls`` cases."""
    words = {
        "cold_first_call": "first call, nothing compiled yet",
        "warm_first_call": "first call, compiled before",
        "operator_overhead": "a planned operator on 4 x 4",
        "conv_overhead": "`conv` on 4 x 4",
    }

    def cell(timing: dict[str, Any]) -> str:
        if "import" in timing:
            return f"{timing['median'] / 1e3:.2f} s (import {timing['import'] / 1e3:.2f} s)"
        return (
            f"{number(timing['median'] * 1e3)} µs" if "median" in timing else milliseconds(timing)
        )

    names = (OURS, *calls.PEERS)
    rows = [
        [words[case["name"]], *(cell(case["candidates"].get(name, {})) for name in names)]
        for case in group(result, "calls")
    ]
    return markdown(["", "ours", *calls.PEERS], rows)


def means(result: dict[str, Any]) -> str:
    """Return the geometric means of the ratios, a group a line, and the least of all."""
    ratios: dict[str, dict[str, float]] = {}
    for name in products.GROUPS:
        found = {case["name"]: ratio(case) for case in group(result, name)}
        ratios[name] = {key: value for key, value in found.items() if value}
    lines = [
        f"{TITLES[name]}: {geometric_mean(found):.2f} times the best peer's speed in the geometric "
        f"mean of {len(found)}"
        for name, found in ratios.items()
        if found
    ]
    every = {f"{n}/{key}": value for n, found in ratios.items() for key, value in found.items()}
    if every:
        least = min(every, key=lambda key: every[key])
        slower = sum(value < 1 for value in every.values())
        lines.append(
            f"All: {geometric_mean(every):.2f} in the geometric mean of {len(every)}; the least is "
            f"{every[least]:.2f} ({least}); {slower} below 1"
        )
    return "\n".join(f"{line}." for line in lines)


def geometric_mean(ratios: dict[str, float]) -> float:
    """Return the geometric mean of the values."""
    return math.exp(statistics.fmean(map(math.log, ratios.values())))


def tables(result: dict[str, Any]) -> str:
    """Return every table that the result has cases for, and the means, for the terminal."""
    parts = []
    for name in TITLES:
        if not group(result, name):
            continue
        if name == "matrix":
            parts.append(matrix_table(result))
        elif name == "calls":
            parts.append(calls_table(result))
        else:
            parts += [f"{TITLES[name]}:", product_table(result, name), everyone(result, name)]
    return "\n\n".join(part for part in [*parts, means(result)] if part)
