"""How others do it: a module a framework, loaded when asked for, all behind `prepare`."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import importlib.util
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import measure
import numpy as np
from problem import Problem

from peers import probe


class Cannot(Exception):
    """A peer cannot do a case; the message is the short reason."""


class Spelling(NamedTuple):
    """One way to have a peer do it.

    Attributes
    ----------
    run : callable
        What is timed; it returns the framework's own result.
    array : callable
        That result as an array in our layout, when the time is over.
    """

    run: Callable[[], Any]
    array: Callable[[Any], np.ndarray]


Spellings = dict[str, Spelling]


@dataclasses.dataclass(frozen=True)
class Peer:
    """Someone else's way to compute a product.

    Attributes
    ----------
    name : str
        As ``--peers`` takes it.
    module, function : str
        What returns its `Spellings` of a `Problem`. The module has ``set_threads(n)``.
    needs : tuple of str
        The modules it imports.
    distributions : tuple of str
        The first of these that is installed has its version.
    interpolates : bool
        Whether it resizes instead: for bilinear kernels only, and the same map but for the
        border, where it repeats the edge.
    hazards : tuple of str
        Products that are tried in another process first, since they may end this one.
    """

    name: str
    module: str
    function: str
    needs: tuple[str, ...]
    distributions: tuple[str, ...]
    interpolates: bool = False
    hazards: tuple[str, ...] = ()

    @property
    def missing(self) -> str | None:
        """Why it cannot be run at all."""
        absent = [need for need in self.needs if importlib.util.find_spec(need) is None]
        if not absent:
            return None
        return "not installed" if absent == [self.needs[0]] else f"{absent[-1]} not installed"

    @property
    def version(self) -> tuple[str, str] | None:
        """Its distribution and that one's version, where it is installed."""
        for name in self.distributions:
            try:
                return name, importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
        return None


_TORCH = (("torch",), ("torch",))
_TENSORFLOW = (("tensorflow",), ("tensorflow", "tensorflow-cpu"))
_ONNX = (("onnxruntime", "onnx"), ("onnxruntime",))
_OPENCV = ("opencv-python-headless", "opencv-python")

PEERS = {
    peer.name: peer
    for peer in (
        Peer("torch channels-last", "peers.torch", "channels_last", *_TORCH),
        Peer("torch NCHW", "peers.torch", "channels_first", *_TORCH),
        # TensorFlow 2.21 with oneDNN writes outside of its memory for some kernel gradients.
        Peer(
            "TensorFlow",
            "peers.tensorflow",
            "spellings",
            *_TENSORFLOW,
            hazards=("kernel_gradient",),
        ),
        Peer("ONNX Runtime", "peers.onnxruntime", "spellings", *_ONNX),
        Peer("OpenCV", "peers.opencv", "spellings", ("cv2", "onnx"), _OPENCV),
        Peer("F.interpolate channels-last", "peers.torch", "resize_channels_last", *_TORCH, True),
        Peer("F.interpolate NCHW", "peers.torch", "resize_channels_first", *_TORCH, True),
        Peer("tf.image.resize", "peers.tensorflow", "resize", *_TENSORFLOW, True),
        Peer("ONNX Resize", "peers.onnxruntime", "resize", *_ONNX, True),
        Peer("cv2.resize", "peers.opencv", "resize", ("cv2",), _OPENCV, True),
    )
}


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A peer's quickest spelling of a problem.

    Attributes
    ----------
    spelling : str
    runs : tuple of callable
        The same once a copy of the problem.
    array : callable
    interior : int
        How far from the border its result is the same map's.
    """

    spelling: str
    runs: tuple[Callable[[], Any], ...]
    array: Callable[[Any], np.ndarray]
    interior: int


def prepare(peer: Peer, problem: Problem, copies: list[Problem], threads: int) -> Prepared:
    """Return the peer's quickest way, on the problem itself and on each of its copies.

    Raises
    ------
    Cannot
        With the reason, whatever it is: a peer's failure is a cell of the table and not the end
        of the run.
    """
    if peer.interpolates and not problem.bilinear:
        raise Cannot("bilinear only")
    if peer.missing:
        raise Cannot(peer.missing)
    if problem.product in peer.hazards and not probe.survives(peer.name, problem.path, threads):
        raise Cannot("ends the process")
    try:
        spellings = spell(peer, problem, threads)
        quickest = min(spellings, key=lambda name: _quick(spellings[name].run))
        others = [spell(peer, copy, threads)[quickest].run for copy in copies]
    except Cannot:
        raise
    except Exception as error:
        first = (str(error).strip() or "no message").splitlines()[0]
        raise Cannot(f"{type(error).__name__}: {first}"[:60]) from error
    interior = problem.geometry.strides[0] // 2 if peer.interpolates else 0
    chosen = spellings[quickest]
    return Prepared(quickest, (chosen.run, *others), chosen.array, interior)


def spell(peer: Peer, problem: Problem, threads: int) -> Spellings:
    """Return all ways that work, those with a group a channel too where no channels mix."""
    module = importlib.import_module(peer.module)
    module.set_threads(threads)
    offer: Callable[[Problem], Spellings] = getattr(module, peer.function)
    found = offer(problem)
    if problem.bilinear and not peer.interpolates:
        found |= {f"{name}, grouped": way for name, way in offer(problem.grouped()).items()}
    working, failure = {}, Cannot("no way to say it")
    for name, way in found.items():
        try:
            way.run()
        except Exception as error:
            failure = error
        else:
            working[name] = way
    if not working:
        raise failure
    return working


def _quick(run: Callable[[], Any]) -> float:
    """Return about how long a run takes."""
    time.sleep(measure.PAUSE_SECONDS)
    return measure.turn(run)
