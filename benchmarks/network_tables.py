"""From `fcn_inference.py`'s measurements to the README's tables of networks."""

from __future__ import annotations

from typing import Any

from tables import markdown, number

#: How ours is computed on a GPU, by the title that says so.
PRECISIONS = {"float32": "float32", "tf32": "TF32", "bfloat16": "bfloat16"}
#: By title: whose median on the CPU.
PEERS = {
    "ONNX Runtime": "ONNX Runtime",
    "`tf.function`": "TensorFlow",
    "its weights frozen": "TensorFlow, frozen",
}


def table(result: dict[str, Any]) -> str:
    """Return the table of a run, on the CPU or on a GPU."""
    return (on_cuda if result["device"] == "cuda" else on_cpu)(result["networks"])


def on_cpu(networks: list[dict[str, Any]]) -> str:
    """Return the medians, how far ours is ahead, and the most memory that a process took."""
    header = ["ms, batch 1", "ours", "ours, frozen", *PEERS, "ratio"]
    header += ["MiB at most: ours, frozen", "ONNX Runtime", "TensorFlow"]
    rows = []
    for network in networks:
        times, peaks = network["times"], network["peaks"]
        theirs = [times[name]["median"] for name in PEERS.values()]
        ours = [times[name]["median"] for name in ("convarith", "convarith, frozen")]
        rows.append(
            [
                network["network"],
                *(number(median) for median in (*ours, *theirs)),
                f"{min(theirs) / ours[0]:.2f}",
                *(
                    f"{peaks[who]['peak']:.0f}"
                    for who in ("convarith", "ONNX Runtime", "TensorFlow")
                ),
            ]
        )
    return markdown(header, rows)


def on_cuda(networks: list[dict[str, Any]]) -> str:
    """Return ours and torch's medians at each precision, also as CUDA graphs."""
    header = ["ms", "batch", "precision", "ours", "torch", "ratio"]
    header += ["as CUDA graphs: ours", "torch", "ratio"]
    rows = []
    for network in networks:
        for precision, title in PRECISIONS.items():
            row = [network["network"], f"{network['batch']}", title]
            for way in ("", ", CUDA graph"):
                medians = [
                    network["times"].get(f"{who} {precision}{way}", {}).get("median")
                    for who in ("convarith", "torch")
                ]
                row += [number(median) if median else "–" for median in medians]
                row.append(f"{medians[1] / medians[0]:.2f}" if all(medians) else "–")
            rows.append(row)
    return markdown(header, rows)
