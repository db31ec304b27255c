"""The most memory that a network takes, in a process of its own that loads a file and predicts.

python benchmarks/fcn_peaks.py convarith|TensorFlow|"ONNX Runtime" FOLDER
"""

from __future__ import annotations

import importlib
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import hardware
import numpy as np

import fcn

WHO = ("convarith", "TensorFlow", "ONNX Runtime")


def peaks(model: fcn.Model, x: np.ndarray) -> dict[str, dict[str, float]]:
    """Return the most memory that a process takes that loads a file and predicts, in MiB."""
    import onnx
    from networks import keras_model, onnx_model

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "x.npy", x)
        model.save(Path(folder) / "model.safetensors")
        keras_model(model.graph, x.shape).save(Path(folder) / "model.keras")
        onnx.save(onnx_model(model.graph, x.shape), Path(folder) / "model.onnx")
        for who in WHO:
            command = [sys.executable, __file__, who, folder]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"{who}: {done.stderr.strip().splitlines()[-1]}")
            found[who] = json.loads(done.stdout.splitlines()[-1])
    return found


def peak(who: str, folder: str) -> int:
    """Load a network in this process, run it three times, and print what memory it took."""
    path = Path(folder)
    x = np.load(path / "x.npy")
    if who == "convarith":
        imported = resident()
        model = fcn.load(path / "model.safetensors").frozen()
        run = lambda: model(x)  # noqa: E731
    elif who == "TensorFlow":
        from peers import tensorflow as peer

        keras = importlib.import_module("keras")
        peer.set_threads(hardware.cores())
        imported = resident()
        theirs = keras.models.load_model(path / "model.keras")
        function = peer.tf.function(lambda batch: theirs(batch, training=False))
        batch = peer.tf.constant(x)
        run = lambda: function(batch)  # noqa: E731
    else:
        importlib.import_module("onnxruntime")
        imported = resident()
        session = onnx_session(str(path / "model.onnx"))
        first = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
        run = lambda: session.run(None, {"x": first})  # noqa: E731
    for _ in range(3):
        run()
    print(json.dumps({"imported": imported, "peak": resident()}))
    return 0


def resident() -> float:
    """Return the most memory that this process has had resident, in MiB."""
    try:  # what the system counts for a process's children begins with what the parent had
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    except OSError:
        pass
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def onnx_session(model: bytes | str) -> Any:
    """Return a session of ONNX Runtime's on all cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = hardware.cores()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    sys.exit(peak(*sys.argv[1:]))
