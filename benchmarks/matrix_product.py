"""The textbook's question: is convolution by matrix product efficient, and why?

``W @ x`` with SciPy's CSR matrix, beside the kernels, over sizes of pictures and numbers of
channels. All on one thread, as SciPy's product is.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import hardware
import measure
import numpy as np
from tables import markdown, number

import convarith
from convarith import ConvGeometry, ConvOperator
from fcn.files import replacing

#: By channels in and out: the pictures' height and width. Kernels are 3 x 3, in float32.
SIZES = {
    (1, 1): tuple(2**n for n in range(3, 12)),
    (3, 8): tuple(2**n for n in range(3, 10)),
    (64, 64): tuple(2**n for n in range(3, 8)),
}
#: Every so many of the sizes are in the table; all are in the plot.
EVERY = 2
#: A larger W is not built.
MAX_BYTES = 1 << 30
#: So many pictures are the columns of one product where they are several.
PICTURES = 16

PRODUCT, OPERATOR, CONV = "W @ x", "operator", "conv"
BUILDING = "building W"
#: Of `PICTURES` pictures at once.
PRODUCTS, OPERATORS = "W @ X", "operator, batch"


def measured(
    seconds: float = 3.0, sizes: Mapping[tuple[int, int], tuple[int, ...]] = SIZES
) -> dict[str, Any]:
    """Return the times in ms and the bytes of all cases, `seconds` for each, and the limits."""
    before = hardware.limits(1)
    threads = convarith.get_num_threads()
    convarith.set_num_threads(1)
    try:
        cases = [case_measured(each, size, seconds) for each in sizes for size in sizes[each]]
    finally:
        convarith.set_num_threads(threads)
    after = hardware.limits(1)
    return {
        "thread": {name: max(before[name], after[name]) for name in before},
        "cache_bytes": hardware.cache_bytes(),
        "pictures": PICTURES,
        "cases": cases,
    }


def case_measured(channels: tuple[int, int], size: int, seconds: float) -> dict[str, Any]:
    """Return a case's times and bytes; without those of W where it is not built."""
    c_in, c_out = channels
    geometry = ConvGeometry((size, size), 3, padding="SAME", in_channels=c_in, out_channels=c_out)
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal(geometry.kernel_shape).astype(np.float32)
    x = rng.standard_normal((PICTURES, *geometry.input_shape)).astype(np.float32)
    operator = ConvOperator(kernel, geometry.input_size, padding="SAME")
    runs: dict[str, Callable[[], Any]] = {
        OPERATOR: lambda: operator(x[:1]),
        CONV: lambda: convarith.conv(x[:1], kernel, padding="SAME"),
        OPERATORS: lambda: operator(x),
    }
    found: dict[str, Any] = {
        "channels": [c_in, c_out],
        "size": size,
        "entries": geometry.nnz,
        "matrix_bytes": geometry.matrix_nbytes(4),
        "kernel_bytes": kernel.nbytes,
        "picture_bytes": x[0].nbytes + 4 * geometry.matrix_shape[0],
    }
    if found["matrix_bytes"] > MAX_BYTES:
        return found | {"times": measure.interleaved(runs, seconds)}

    def build() -> Any:
        return convarith.conv_as_matmul(kernel, geometry.input_shape, padding="SAME")

    built = measure.interleaved({BUILDING: build}, seconds / 6)
    W = build()
    assert W.data.nbytes + W.indices.nbytes + W.indptr.nbytes == found["matrix_bytes"]
    columns = np.ascontiguousarray(x.reshape(PICTURES, -1).T)
    error = np.abs(W @ columns - operator(x).reshape(PICTURES, -1).T).max()
    runs |= {PRODUCT: lambda: W @ x[0].ravel(), PRODUCTS: lambda: W @ columns}
    return found | {
        "difference": float(error / np.abs(operator(x)).max()),
        "times": {**built, **measure.interleaved(runs, seconds)},
    }


def milliseconds(case: Mapping[str, Any], name: str) -> float | None:
    """Return the median time of a picture, or None where it was not measured."""
    if name not in case["times"]:
        return None
    several = PICTURES if name in (PRODUCTS, OPERATORS) else 1
    return case["times"][name]["median"] / several


def ratio(case: Mapping[str, Any], name: str = PRODUCT, ours: str = OPERATOR) -> float | None:
    """Return the time of W's product over the operator's."""
    theirs = milliseconds(case, name)
    return None if theirs is None else theirs / milliseconds(case, ours)


def intensity(case: Mapping[str, Any], weights: str) -> float:
    """Return the FLOP for every byte that is moved if each array is moved once.

    The weights are those of ``"matrix_bytes"`` or of ``"kernel_bytes"``.
    """
    return 2 * case["entries"] / (case[weights] + case["picture_bytes"])


def title(case: Mapping[str, Any]) -> str:
    """Return what a case is called."""
    c_in, c_out = case["channels"]
    return f"{case['size']}x{case['size']}, {c_in} -> {c_out}"


def table(result: Mapping[str, Any]) -> str:
    """Return the table of every other size."""
    timed = {BUILDING: "building W", PRODUCT: "`W @ x`", OPERATOR: "operator", CONV: "`conv`"}
    header = ["picture, channels", "W, MB", *(f"{name}, ms" for name in timed.values())]
    smallest: dict[tuple[int, ...], int] = {}
    rows = []
    for case in result["cases"]:
        first = smallest.setdefault(tuple(case["channels"]), case["size"])
        if (case["size"] // first).bit_length() % EVERY != 1:
            continue
        times = [milliseconds(case, name) for name in timed]
        slower = ratio(case)
        rows.append(
            [
                title(case),
                number(case["matrix_bytes"] / 1e6),
                *("–" if time is None else number(time) for time in times),
                "–" if slower is None else number(slower),
            ]
        )
    return markdown([*header, "`W @ x`/operator"], rows)


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Draw time and memory over the pictures' sides, on logarithmic axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.6), layout="constrained")
    time_axes, memory_axes = figure.subplots(1, 2)
    styles = {BUILDING: ":", PRODUCT: "-", OPERATOR: "--"}
    channels = list(dict.fromkeys(tuple(case["channels"]) for case in result["cases"]))
    for index, (c_in, c_out) in enumerate(channels):
        cases = [case for case in result["cases"] if case["channels"] == [c_in, c_out]]
        for name, style in styles.items():
            points = [(case["size"], milliseconds(case, name)) for case in cases]
            time_axes.plot(
                *zip(*((size, time) for size, time in points if time is not None), strict=True),
                color=f"C{index}",
                linestyle=style,
                marker=".",
                label=f"{name}, {c_in} -> {c_out}",
            )
        for name, style in (("matrix_bytes", "-"), ("kernel_bytes", "--")):
            memory_axes.plot(
                [case["size"] for case in cases],
                [case[name] / 1e6 for case in cases],
                color=f"C{index}",
                linestyle=style,
                marker=".",
                label=f"{'W' if name == 'matrix_bytes' else 'kernel'}, {c_in} -> {c_out}",
            )
    for axes, what in ((time_axes, "time, ms"), (memory_axes, "memory, MB")):
        sides = sorted({case["size"] for case in result["cases"]})
        axes.set(xscale="log", yscale="log", xlabel="height and width", title=what)
        axes.set_xticks(sides, [str(side) for side in sides])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize="x-small")
    with replacing(path) as beside:
        figure.savefig(beside, dpi=110, metadata={"Software": None})


def report(name: str, result: Mapping[str, Any]) -> str:
    """Return the table, the curve and what the figures come to."""
    parts = (memory, speed, intensities, rates, several, agreement)
    sentences = [part(result) for part in parts]
    return "\n\n".join(
        [
            "3 x 3 kernels, padding SAME, float32, one thread; medians.",
            table(result),
            f"![Time and memory of W @ x and of the kernels](../docs/experiments/{name}.png)",
            "\n".join(f"- {sentence}" for sentence in sentences if sentence),
        ]
    )


def _built(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [case for case in result["cases"] if PRODUCT in case["times"]]


def memory(result: Mapping[str, Any]) -> str:
    """Return how much W takes, in a sentence."""
    most = max(result["cases"], key=lambda case: case["matrix_bytes"] / case["kernel_bytes"])
    missing = [case for case in result["cases"] if PRODUCT not in case["times"]]
    text = (
        f"W is {most['matrix_bytes'] / most['kernel_bytes']:,.0f} times the kernel at "
        f"{title(most)}: {most['matrix_bytes'] / 1e6:,.0f} MB for {most['kernel_bytes']:,} bytes."
    )
    if missing:
        least = min(case["matrix_bytes"] for case in missing)
        text += f" Those of {least / 1e9:.1f} GB and more were not built."
    return text


def speed(result: Mapping[str, Any]) -> str:
    """Return where `W @ x` is the slowest beside the operator, and where it is quicker."""
    built = _built(result)
    if not built:
        return ""
    slowest = max(built, key=ratio)
    text = (
        f"`W @ x` takes {number(ratio(slowest))} times as long as the operator at {title(slowest)}."
    )
    for c_in, c_out in dict.fromkeys(tuple(case["channels"]) for case in built):
        cases = [case for case in built if case["channels"] == [c_in, c_out]]
        quicker = [f"{case['size']}x{case['size']}" for case in cases if ratio(case) < 1]
        where = "at no size" if not quicker else f"at {', '.join(quicker)}"
        where = "at all sizes" if len(quicker) == len(cases) else where
        text += f" With {c_in} -> {c_out} channels it is quicker {where}."
    return text


def intensities(result: Mapping[str, Any]) -> str:
    """Return the FLOP for every byte, with W and with the kernel, in sentences."""
    with_w, with_kernel = (
        [intensity(case, weights) for case in result["cases"]]
        for weights in ("matrix_bytes", "kernel_bytes")
    )
    thread = result["thread"]
    most = min(thread["gflops"], max(with_w) * thread["gbytes_per_second"])
    return (
        f"If every array is moved once, there are {min(with_w):.2f} to {max(with_w):.2f} FLOP for "
        f"each byte with W, and {min(with_kernel):.1f} to {max(with_kernel):.0f} with the kernel. "
        f"One thread copies {thread['gbytes_per_second']:.0f} GB/s and multiplies and adds "
        f"{thread['gflops']:.0f} GFLOP/s: with W, memory allows {most:.0f} of them."
    )


def rates(result: Mapping[str, Any]) -> str:
    """Return how fast `W @ x` gets through W, in the caches and beyond, and the kernels' rate."""
    cache = result["cache_bytes"]
    parts = []
    for place, low, high in (("below", 0, cache // 4), ("above", cache * 2, float("inf"))):
        # Of small products it is the call that takes the time.
        cases = [c for c in _built(result) if low < c["matrix_bytes"] < high]
        cases = [c for c in cases if c["entries"] >= 100_000]
        if cases:
            each = statistics.median(1e6 * milliseconds(c, PRODUCT) / c["entries"] for c in cases)
            parts.append(
                f"{each:.2f} ns an entry where W is {place} {(low or high) >> 20} MiB, "
                f"{2 / each:.1f} GFLOP/s"
            )
    best = max(result["cases"], key=lambda c: c["entries"] / milliseconds(c, OPERATOR))
    text = f"`W @ x` takes {' and '.join(parts)}. " if parts else ""
    return text + (
        f"The operator comes to {2e-6 * best['entries'] / milliseconds(best, OPERATOR):.0f} "
        f"GFLOP/s at {title(best)}, in those of the direct sum."
    )


def several(result: Mapping[str, Any]) -> str:
    """Return what several pictures at once change, in a sentence."""
    gains = {
        title(case): milliseconds(case, PRODUCT) / milliseconds(case, PRODUCTS)
        for case in _built(result)
    }
    if not gains:
        return ""
    most, least = max(gains, key=gains.get), min(gains, key=gains.get)
    above = [ratio(case, PRODUCTS, OPERATORS) for case in _built(result)]
    return (
        f"With {result['pictures']} pictures as columns, W is read once for all: a picture takes "
        f"1/{gains[most]:.1f} of the time at {most}, 1/{gains[least]:.1f} at {least}; the operator "
        f"on the same batch is quicker in {sum(r > 1 for r in above)} of {len(above)} cases."
    )


def agreement(result: Mapping[str, Any]) -> str:
    """Return how far the two ways lie apart, in a sentence."""
    most = max((case["difference"] for case in _built(result)), default=0.0)
    return f"The two differ by {most:.0e} of the largest result at most."
