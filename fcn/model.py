"""`Model`: a network with its classes and what it was trained on, and `build`, which makes one."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import backbones, blocks, heads, receptive
from .class_names import MOST_CLASSES, class_names
from .graph import INPUT, Graph
from .inference import Program
from .layers import Array, Softmax, namespace
from .layers.sizes import integer
from .preprocess import Preprocess


class Model:
    """A network that gives each pixel its class.

    Parameters
    ----------
    graph : Graph
        From ``(n, h, w, channels)`` to ``(n, h, w, classes)``. A softmax at its end is what
        `logits` leaves out; without one its output are the logits.
    classes : sequence of str
        A name each.
    preprocess : Preprocess
        From a picture's pixels to the input.
    architecture : mapping, optional
        What it was made of, in JSON's types: for people, and for the files' metadata.
    algorithm, precision, dtype
        As `compiled` takes them.
    share : bool
        As `Program` takes it; `frozen` sets it.

    Attributes
    ----------
    scores : str
        The node whose result are the logits.
    stride : int
        How far the input moves when the coarsest feature map moves by one. Pictures whose sizes
        are multiples of it meet no rounded-up sizes.

    Notes
    -----
    It computes with the weights as they are when a size of the input first comes. After
    changing arrays of the graph, go on with `compiled`. Several threads may call one model.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        classes: Sequence[str],
        preprocess: Preprocess,
        architecture: Mapping[str, Any] | None = None,
        algorithm: str | None = None,
        precision: str = "float32",
        dtype: str = "float32",
        share: bool = False,
    ) -> None:
        self.graph = graph
        self.classes = class_names(classes)
        self.preprocess = preprocess
        if architecture is not None and not isinstance(architecture, Mapping):
            raise TypeError(f"architecture: expected a mapping, got {architecture!r:.80}")
        self.architecture = dict(architecture or {})
        self._settings: dict[str, Any] = {
            "algorithm": algorithm,
            "precision": precision,
            "dtype": dtype,
            "share": share,
        }
        last = graph.nodes[graph.output]
        self.scores = last.inputs[0] if isinstance(last.layer, Softmax) else graph.output
        channels = receptive.channels(graph)[graph.output]
        if channels != len(self.classes):
            raise ValueError(
                f"classes: expected {channels} names, as the graph has outputs, "
                f"got {len(self.classes)}"
            )
        self.stride = receptive.stride(graph)
        self.program = (
            None if self.scores == INPUT else Program(graph, self.scores, **self._settings)
        )

    def __call__(self, x: Array) -> Array:
        """Return class probabilities ``(n, h, w, classes)``, an array of the caller's own.

        Parameters
        ----------
        x : ndarray
            ``(n, h, w, channels)``, float32, preprocessed; any ``h`` and ``w`` of at least 1.
        """
        logits = x.copy() if self.program is None else self.program(x, widen=False)
        if logits.dtype == np.float32:
            return blocks.softmax(logits, out=logits)
        return blocks.softmax(logits, out=namespace(logits).empty(logits.shape, np.float32))

    def logits(self, x: Array) -> Array:
        """Return what goes into the softmax, ``(n, h, w, classes)``, an array of the caller's own.

        Parameters
        ----------
        x : ndarray
            As `__call__` takes it.
        """
        return x.copy() if self.program is None else self.program(x)

    def to(self, device: str) -> Model:
        """Return the model with its weights on a device; itself where they are.

        Parameters
        ----------
        device : {"cpu", "cuda"}

        Raises
        ------
        ValueError
            Where there is no such device, or no CuPy.
        """
        if device not in ("cpu", "cuda"):
            raise ValueError(f"device: expected 'cpu' or 'cuda', got {device!r}")
        xp = np if device == "cpu" else _cupy()
        if (self.program.xp if self.program else np) is xp:
            return self
        settings = self._settings
        if xp is np:
            settings = settings | {"precision": "float32", "dtype": "float32"}
        return self._like(self.graph.to(xp), settings)

    def compiled(
        self,
        *,
        algorithm: str | None = None,
        precision: str = "float32",
        dtype: str = "float32",
    ) -> Model:
        """Return the model on the same graph, to compute with its arrays as they are now.

        Parameters
        ----------
        algorithm : {None, "direct"}
            None takes what is fastest; "direct" gives the same bits for a tile as for the whole.
        precision : {"float32", "tf32"}
            What float32 products are rounded to; "tf32" on CUDA only.
        dtype : {"float32", "bfloat16", "float16"}
            What is computed with; the half types on CUDA only. Results are float32 all the same.
        """
        settings = {"algorithm": algorithm, "precision": precision, "dtype": dtype}
        return self._like(self.graph, self._settings | settings)

    def frozen(self) -> Model:
        """Return the model on the same graph, for inference alone: it takes less memory.

        On the CPU the graph's kernels become those that the plans keep anyway, and read-only, and
        large ones of Winograd's are transformed in every call, which takes a few percent more
        time. No bit of a result changes.
        """
        return self._like(self.graph, self._settings | {"share": True})

    def _like(self, graph: Graph, settings: Mapping[str, Any]) -> Model:
        return Model(
            graph,
            classes=self.classes,
            preprocess=self.preprocess,
            architecture=self.architecture,
            **settings,
        )

    def save(self, path: str | Path) -> None:
        """Write the model to a safetensors file, which `fcn.load` reads."""
        from .saved import save

        save(self, Path(path))


def build(
    backbone: str,
    classes: int | Sequence[str],
    head: str,
    *,
    weights: str | Path | None = None,
    seed: int = 0,
    fc: bool = False,
    upsampling: str = "bilinear",
) -> Model:
    """Return a fully convolutional network, its head untrained.

    Parameters
    ----------
    backbone : {"vgg16", "resnet50v2", "resnet101v2", "mobilenet_v2"}
    classes : int or sequence of str
        Their number, or their names.
    head : {"32s", "16s", "8s"}
        The stride of the finest scores: see `fcn.heads.nodes`.
    weights : None, "imagenet" or path
        What the backbone's arrays are read from. None draws them.
    seed : int
        Of all that is drawn. The head does not depend on `weights`.
    fc : bool
        Whether vgg16 has its fc6 and fc7, as convolutions.
    upsampling : {"bilinear", "xavier"}
        What the transposed convolutions start as.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what was expected and what came.

    Notes
    -----
    Long, Shelhamer & Darrell, "Fully convolutional networks for semantic segmentation",
    arXiv:1411.4038.

    Examples
    --------
    >>> model = build("mobilenet_v2", ["road", "sky"], "32s")
    >>> model(np.zeros((1, 33, 65, 3), np.float32)).shape
    (1, 33, 65, 2)
    """
    names = _names(classes)
    seed = integer("seed", seed, 0, 2**63)
    rng = None if weights is not None else np.random.default_rng((seed, 0))
    trunk = backbones.nodes(backbone, rng, fc=fc)
    drawn = np.random.default_rng((seed, 1))
    crown = heads.nodes(head, trunk, len(names), drawn, upsampling)
    graph = Graph(trunk.nodes | crown, channels=3)
    preprocess = trunk.preprocess
    if weights is not None:
        from .pretrained import load_into

        load_into(graph, weights if weights == "imagenet" else Path(weights), backbone)
    architecture = {"backbone": backbone, "head": head, "fc": fc}
    return Model(graph, classes=names, preprocess=preprocess, architecture=architecture)


def graph_of(backbone: str, classes: int, head: str, *, fc: bool = False) -> Graph:
    """Return the graph of a network as `build` makes it, with zeros for the backbone's kernels.

    >>> len(graph_of("vgg16", 21, "32s", fc=True).nodes)
    39
    """
    integer("classes", classes, 1, MOST_CLASSES)
    trunk = backbones.nodes(backbone, None, fc=fc)
    drawn = np.random.default_rng(0)
    return Graph(trunk.nodes | heads.nodes(head, trunk, classes, drawn), channels=3)


def load(path: str | Path) -> Model:
    """Return the model in a file: safetensors that `Model.save` wrote, or Keras's own.

    Raises
    ------
    OSError, ValueError
        In one line, for a file that is none of these or not whole.
    """
    from .saved import load

    return load(Path(path))


def _names(classes: int | Sequence[str]) -> tuple[str, ...]:
    """Return a name a class."""
    if isinstance(classes, (str, bytes)) or not isinstance(classes, Sequence):
        count = integer("classes", classes, 1, MOST_CLASSES)
        return tuple(f"class {number}" for number in range(count))
    return class_names(classes)


def _cupy() -> Any:
    """Return CuPy, where it is installed and there is a GPU."""
    try:
        cupy = importlib.import_module("cupy")
        count = cupy.cuda.runtime.getDeviceCount()
    except ImportError:
        raise ValueError("device: cuda needs CuPy: pip install 'convarith[cuda12]'") from None
    except Exception as error:  # CuPy's own, which names the driver
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device: no CUDA device ({reason})") from None
    if not count:
        raise ValueError("device: no CUDA device")
    return cupy
