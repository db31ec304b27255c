"""Measure fcn's networks beside the same networks in other libraries, with the same weights.

python benchmarks/fcn_inference.py --device cpu|cuda [--models ...] [--seconds S] [--json F]

No figure here passes or fails. A network's result is compared with ours before it is timed.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hardware
import measure
import numpy as np
from fcn_peaks import onnx_session, peaks

import fcn
from fcn.layers import Conv, ConvTranspose

SIZE = (320, 480)
CLASSES = 21
#: By name: backbone and head.
MODELS = {
    "resnet101v2-32s": ("resnet101v2", "32s"),
    "vgg16-8s": ("vgg16", "8s"),
    "resnet50v2-8s": ("resnet50v2", "8s"),
    "mobilenet_v2-8s": ("mobilenet_v2", "8s"),
}
DEFAULT = ("resnet101v2-32s", "vgg16-8s")
#: The largest difference to ours, relative to the largest probability.
TOLERANCE = 1e-4
Run = Callable[[], Any]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=DEFAULT, metavar="NAME")
    parser.add_argument("--fc", action="store_true", help="with vgg16's fc6 and fc7")
    parser.add_argument("--batch", nargs="+", type=int, help="(default: 1, and 16 on a GPU)")
    parser.add_argument("--seconds", type=float, default=30.0, help="a network (default: 30)")
    parser.add_argument("--profile", action="store_true", help="print our time a layer as well")
    parser.add_argument("--json", type=Path, metavar="F", help="write the measurements to F")
    options = parser.parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if options.device == "cuda":
        import gpu

        if missing := gpu.missing():
            print(f"benchmarks/fcn_inference.py: --device cuda: {missing}", file=sys.stderr)
            return 2
    result: dict[str, Any] = {
        "machine": machine(options.device) | {"versions": versions(options.device)},
        "device": options.device,
        "date": datetime.date.today().isoformat(),
        "size": SIZE,
        "networks": [],
    }
    for name in options.models:
        for batch in options.batch or ((1,) if options.device == "cpu" else (1, 16)):
            model = network(name, fc=options.fc and name.startswith("vgg16"))
            x = np.random.default_rng(0).standard_normal((batch, *SIZE, 3), np.float32)
            if options.device == "cpu":
                found = on_cpu(model, x, options.seconds)
                found["peaks"] = peaks(model, x)
            else:
                from fcn_inference_cuda import on_cuda

                found = on_cuda(model, x, options.seconds)
            record = {"network": name, "batch": batch, **found}
            result["networks"].append(record)
            print("\n".join(lines(record)), flush=True)
            if options.profile and options.device == "cpu":
                print("\n".join(profile(model, x)), flush=True)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


def machine(device: str) -> dict[str, Any]:
    """Return what computes."""
    if device == "cpu":
        return hardware.machine()
    from gpu import limits

    return limits.machine()


def versions(device: str) -> dict[str, str]:
    """Return the versions of what computes."""
    names = {"cpu": ("numba", "tensorflow", "onnxruntime"), "cuda": ("cupy", "torch")}[device]
    found = {}
    for name in ("numpy", "convarith", *names):
        for distribution in (name, f"{name}-cpu", f"{name}-cuda13x", f"{name}-cuda12x"):
            try:
                found[name] = importlib.metadata.version(distribution)
                break
            except importlib.metadata.PackageNotFoundError:
                continue
    return found


def network(name: str, *, fc: bool = False) -> fcn.Model:
    """Return a network with random weights, whose scores are of the order of one.

    So the probabilities that are compared are none of them zero or one, and all of the network
    is in them.
    """
    backbone, head = MODELS[name]
    model = fcn.build(backbone, CLASSES, head, fc=fc)
    rng = np.random.default_rng(1)
    arrays = model.graph.arrays()
    for key, array in arrays.items():
        node, kind = key.rsplit("/", 1)
        if kind in ("gamma", "moving_variance"):
            array[...] = rng.uniform(0.5, 1.5, array.shape)
        elif kind in ("bias", "beta", "moving_mean"):
            array[...] = rng.normal(0, 0.1, array.shape)
        elif node in ("score8", "score16"):
            array[...] = rng.normal(0, 0.02, array.shape)
    x = rng.standard_normal((1, 64, 96, 3), np.float32)
    for node in ("score32", "score16", "score8"):
        if f"{node}/kernel" in arrays:
            spread = model.graph.forward(x, until=node)[0].std()
            for kind in ("kernel", "bias"):
                arrays[f"{node}/{kind}"] /= spread
    return model.compiled()


def on_cpu(model: fcn.Model, x: np.ndarray, seconds: float) -> dict[str, Any]:
    """Return the medians of ours and of the peers, interleaved, and how far they are from ours."""
    frozen = model.frozen()
    ours = model(x)
    if not np.array_equal(frozen(x), ours):
        raise ValueError("a frozen model's bits differ")
    runs: dict[str, Run] = {"convarith": lambda: model(x), "convarith, frozen": lambda: frozen(x)}
    errors = {}
    for name, make in (("TensorFlow", tensorflow), ("ONNX Runtime", onnxruntime)):
        for spelling, (run, array) in make(model, x).items():
            errors[spelling] = difference(array(run()), ours)
            if not errors[spelling] <= TOLERANCE:
                raise ValueError(f"{name}: differs from ours by {errors[spelling]:.1e}")
            runs[spelling] = run
    before = hardware.others_seconds()
    times = measure.interleaved(runs, seconds)
    spent = sum(t["median"] * t["rounds"] for t in times.values()) / 1e3
    others = (hardware.others_seconds() - before) / (spent * hardware.cores())
    return {"times": times, "errors": errors, "others": others}


def difference(theirs: np.ndarray, ours: np.ndarray) -> float:
    """Return the largest difference, relative to the largest entry."""
    if theirs.shape != ours.shape:
        raise ValueError(f"expected shape {ours.shape}, got {theirs.shape}")
    return float(np.abs(theirs - ours).max() / np.abs(ours).max())


def tensorflow(model: fcn.Model, x: np.ndarray) -> dict[str, tuple[Run, Callable]]:
    """Return TensorFlow's ways: a function of the Keras model, and one with the weights fixed."""
    from networks import keras_model
    from peers import tensorflow as peer
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    peer.set_threads(hardware.cores())
    tf = peer.tf
    theirs = keras_model(model.graph, x.shape)
    function = tf.function(lambda batch: theirs(batch, training=False))
    batch = tf.constant(x)
    frozen = convert_variables_to_constants_v2(function.get_concrete_function(batch))
    return {
        "TensorFlow": (lambda: function(batch), lambda result: result.numpy()),
        "TensorFlow, frozen": (lambda: frozen(batch), lambda result: result[0].numpy()),
    }


def onnxruntime(model: fcn.Model, x: np.ndarray) -> dict[str, tuple[Run, Callable]]:
    """Return ONNX Runtime's way, on a batch that is channels first already."""
    from networks import onnx_model

    session = onnx_session(onnx_model(model.graph, x.shape).SerializeToString())
    first = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    return {
        "ONNX Runtime": (
            lambda: session.run(None, {"x": first})[0],
            lambda result: result.transpose(0, 2, 3, 1),
        )
    }


def lines(record: dict[str, Any]) -> list[str]:
    """Return what was measured of a network, in words."""
    times = record["times"]
    made = [f"{record['network']}, batch {record['batch']}, {SIZE[0]} x {SIZE[1]}"]
    for name, taken in times.items():
        error = record["errors"].get(name)
        made.append(
            f"  {name:<28} {taken['median']:9.2f} ms  ({taken['low']:.2f} to {taken['high']:.2f}, "
            f"{taken['rounds']} rounds)" + (f"  error {error:.1e}" if error is not None else "")
        )
    if record.get("others", 0) > 0.05:
        made.append(f"  others had {100 * record['others']:.0f} % of the cores meanwhile")
    for name, taken in times.items():
        if name.startswith("convarith"):
            theirs = peers_like(name, times)
            if theirs:
                best = min(theirs, key=lambda peer: theirs[peer])
                made.append(f"  {name}: {theirs[best] / taken['median']:.2f} x {best}")
    for name, taken in record.get("peaks", {}).items():
        made.append(
            f"  {name:<28} {taken['peak']:9.0f} MiB at most, {taken['imported']:.0f} imported"
        )
    for name, count in record.get("memory", {}).items():
        made.append(f"  {name:<28} {count / 2**20:9.0f} MiB of the GPU's memory")
    for name, reason in record.get("failures", {}).items():
        made.append(f"  {name:<28} failed: {reason}")
    return made


def peers_like(name: str, times: dict[str, Any]) -> dict[str, float]:
    """Return the peers' medians that ours of a name is compared with.

    On a GPU those of the same precision, and as a CUDA graph or not; else all.
    """
    theirs = {peer: t["median"] for peer, t in times.items() if not peer.startswith("convarith")}
    alike = name.removeprefix("convarith")
    if alike in ("", ", frozen"):
        return theirs
    return {peer: median for peer, median in theirs.items() if peer.removeprefix("torch") == alike}


def profile(model: fcn.Model, x: np.ndarray) -> list[str]:
    """Return our time by kind of step and size, the least of several runs."""
    least: dict[str, float] = {}
    stops: list[float] = []
    for _ in range(5):
        stops[:] = [time.perf_counter()]
        model.program(x, each=lambda step: stops.append(time.perf_counter()))
        for step, start, stop in zip(model.program.steps, stops, stops[1:], strict=False):
            least[step.name] = min(least.get(step.name, np.inf), (stop - start) * 1e3)
    shapes = model.program.shapes(x.shape)
    groups: dict[str, list[float]] = {}
    for step in model.program.steps:
        layer, (n, h, w, _) = step.layer, shapes[step.name]
        kind, work = type(layer).__name__, 0.0
        if isinstance(layer, Conv | ConvTranspose):
            kind += " {}x{}".format(*layer.kernel.shape[:2])
            kind += "" if layer.strides == (1, 1) else f" / {layer.strides[0]}"
        if isinstance(layer, Conv):
            work = 2 * n * h * w * layer.kernel.size / 1e6
        group = groups.setdefault(f"{kind} to {h}x{w}", [0, 0, 0])
        for at, value in enumerate((least[step.name], work, 1)):
            group[at] += value
    made = [f"  {'step':<32} {'count':>5} {'ms':>9} {'GFLOP/s':>8}"]
    for kind, (ms, work, count) in sorted(groups.items(), key=lambda group: -group[1][0]):
        rate = f"{work / ms:8.0f}" if work else ""
        made.append(f"  {kind:<32} {count:5.0f} {ms:9.2f} {rate}".rstrip())
    return made


if __name__ == "__main__":
    sys.exit(main())
