"""From a GPU's measurements to tables: a group at a precision each, and what they come to."""

from __future__ import annotations

from typing import Any

from products import OURS
from tables import TITLES, best, geometric_mean, group, markdown, milliseconds, number, ratio

from gpu.trials import GROUPS, PRECISIONS

LABELS = {
    "float32": "float32",
    "tf32": "TF32",
    "bfloat16": "bfloat16",
    "float16": "float16",
}
GROUP_TITLES = {**TITLES, "argmax": "Argmax over channels"}
#: The groups whose trials have every precision.
PRODUCT_GROUPS = tuple(name for name in GROUPS if name not in ("argmax", "calls"))


def at(result: dict[str, Any], name: str, precision: str) -> list[dict[str, Any]]:
    """Return the result's cases of a group at a precision."""
    return [case for case in group(result, name) if case["precision"] == precision]


def least_ms(case: dict[str, Any], limits: dict[str, Any]) -> float | None:
    """Return the least time by bandwidth and, unless it is memory alone that counts, by peak.

    None where the peak of the precision was not measured.
    """
    moving = case["bytes"] / limits["gbytes_per_second"] / 1e6
    if case["memory_bound"]:
        return moving
    peak = limits["tflops"].get(case["precision"])
    return max(moving, case["flops"] / peak / 1e9) if peak else None


def of_roofline(case: dict[str, Any], limits: dict[str, Any]) -> str:
    """Return the least time over ours in percent."""
    ours = case["candidates"][OURS]
    least = least_ms(case, limits) if "median" in ours else None
    return f"{100 * least / ours['median']:.0f}" if least else "–"


def of_copy(case: dict[str, Any]) -> str:
    """Return what a copy of as many bytes took, in percent of ours: of what only moves bytes."""
    ours = case["candidates"][OURS]
    if "copy" not in case or "median" not in ours:
        return ""
    return f"{100 * case['copy']['median'] / ours['median']:.0f}"


def product_table(cases: list[dict[str, Any]], limits: dict[str, Any]) -> str:
    """Return the table of a group at one precision."""
    header = ["case", "batch", "ours, ms", "best peer, ms", "ratio", "% of roofline", "% of a copy"]
    header += ["error", "peer's error", "enqueueing, µs"]
    rows = []
    for case in cases:
        ours, found, times = case["candidates"][OURS], best(case), ratio(case)
        rows.append(
            [
                case["name"],
                f"{case['batch']}",
                milliseconds(ours),
                f"{milliseconds(found[1])} ({found[0]})" if found else "–",
                f"{times:.2f}" if times else "–",
                of_roofline(case, limits),
                of_copy(case),
                f"{ours['error']:.1e}" if "error" in ours else "–",
                f"{found[1]['error']:.1e}" if found else "–",
                number(1e3 * ours["enqueue"]) if "enqueue" in ours else "–",
            ]
        )
    return markdown(header, rows)


def brief_cell(case: dict[str, Any], limits: dict[str, Any]) -> str:
    """Return ours in ms, the ratio, % of the roofline and of a copy; or that ours has no time."""
    ours, times = case["candidates"][OURS], ratio(case)
    if "median" not in ours:
        return milliseconds(ours)
    share = f"{of_roofline(case, limits)} %" + (
        f" ({copied} %)" if (copied := of_copy(case)) else ""
    )
    return f"{milliseconds(ours)} · {f'{times:.2f}' if times else '–'} · {share}"


def brief_table(result: dict[str, Any], name: str) -> str:
    """Return a group's table with a column a precision: ours in ms, the ratio, % of roofline."""
    cases = group(result, name)
    cells = {
        (case["name"], case["batch"], case["precision"]): brief_cell(case, result["limits"])
        for case in cases
    }
    precisions = [p for p in PRECISIONS if any(p == key[2] for key in cells)]
    rows = [
        [case, f"{batch}", *(cells.get((case, batch, p), "–") for p in precisions)]
        for case, batch in dict.fromkeys(key[:2] for key in cells)
    ]
    return markdown(["case", "batch", *(LABELS[p] for p in precisions)], rows)


def everyone(cases: list[dict[str, Any]]) -> str:
    """Return each candidate's median and, in brackets, quartiles; or why there is none."""
    names = list(dict.fromkeys(name for case in cases for name in case["candidates"]))
    rows = []
    for case in cases:
        row = [case["name"], f"{case['batch']}"]
        for name in names:
            timing = case["candidates"].get(name, {"skipped": ""})
            cell = milliseconds(timing)
            if "median" in timing:
                cell += f" ({number(timing['low'])}-{number(timing['high'])})"
            elif "failed" in timing:
                cell += f": {timing['failed'][:60]}"
            row.append(cell)
        rows.append(row)
    return markdown(["ms", "batch", *names], rows)


def calls_table(cases: list[dict[str, Any]]) -> str:
    """Return the table of the ``calls`` cases."""
    words = {
        "operator_overhead": "a planned operator on 4 x 4",
        "conv_overhead": "`conv` on 4 x 4",
    }

    def cell(timing: dict[str, Any]) -> str:
        if "median" in timing:
            return f"{number(timing['median'] * 1e3)} µs"
        return milliseconds(timing)

    names = dict.fromkeys((OURS, *(name for case in cases for name in case["candidates"])))
    rows = [
        [words[case["name"]], *(cell(case["candidates"].get(name, {})) for name in names)]
        for case in cases
    ]
    return markdown(["enqueueing", "ours", *list(names)[1:]], rows)


def means(result: dict[str, Any]) -> str:
    """Return the geometric means of the ratios, a group and precision a line."""
    lines = []
    for name in PRODUCT_GROUPS:
        for precision in PRECISIONS:
            cases = at(result, name, precision)
            found = {f"{case['name']}, batch {case['batch']}": ratio(case) for case in cases}
            ratios = {key: value for key, value in found.items() if value}
            if ratios:
                least = min(ratios, key=lambda key: ratios[key])
                lines.append(
                    f"- {TITLES[name]}, {LABELS[precision]}: {geometric_mean(ratios):.2f} times "
                    f"the best peer's speed in the geometric mean of {len(ratios)}; the least is "
                    f"{ratios[least]:.2f} ({least})."
                )
    return "\n".join(lines)


def brief(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a table a group, each with its title."""
    return [
        (
            GROUP_TITLES[name],
            calls_table(group(result, name)) if name == "calls" else brief_table(result, name),
        )
        for name in GROUPS
        if group(result, name)
    ]


def tables(result: dict[str, Any]) -> str:
    """Return all tables and means for the terminal, and what is not in them."""
    text = []
    for name in PRODUCT_GROUPS + ("argmax",):
        for precision in PRECISIONS:
            if cases := at(result, name, precision):
                table = product_table(cases, result["limits"])
                title = f"{GROUP_TITLES[name]}, {LABELS[precision]}"
                text += [f"{title}:", table, everyone(cases)]
    if cases := group(result, "calls"):
        text.append(calls_table(cases))
    if left_out := result["left_out"]:
        text.append(f"Left out, {len(left_out)}: {', '.join(left_out)}.")
    return "\n\n".join(part for part in [*text, means(result)] if part)


def caption(result: dict[str, Any]) -> str:
    """Return where and with what it was measured, in a sentence."""
    machine, limits = result["machine"], result["limits"]
    peaks = ", ".join(
        f"{LABELS[precision]} {tflops:.0f}" for precision, tflops in limits["tflops"].items()
    )
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['card']} ({machine['multiprocessors']} multiprocessors, compute capability "
        f"{machine['compute_capability']}), driver {machine['driver']} (CUDA "
        f"{machine['driver_cuda']}), CUDA runtime {machine['runtime_cuda']}, Python "
        f"{machine['python']}, {versions}; measured: copying {limits['gbytes_per_second']:.0f} "
        f"GB/s, products of 8192 x 8192 matrices in TFLOP/s {peaks or '–'}; {result['date']}."
    )
