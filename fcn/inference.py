"""`Program`: a graph's inference, planned once a size, with as few passes as there are products."""

from __future__ import annotations

import collections
import dataclasses
import math
import threading
from collections.abc import Callable

import numpy as np

from .fusion import Step, steps
from .graph import INPUT, Graph
from .half import DTYPES, dtype_of, empty, narrowed, widened
from .layers import Array, Conv, ConvTranspose, Shape, namespace
from .runs import Settings, planned

#: Plans of so many sizes of the input are kept, or as many as take so many bytes: each has the
#: kernels once more, and packed.
SIZES, MOST_BYTES = 16, 2**30

#: Winograd's is no choice: it exists for some convolutions alone, and None takes it for those.
ALGORITHMS = (None, "direct")
PRECISIONS = ("float32", "tf32")


class Program:
    """What a graph computes at inference, to one of its nodes.

    Batch normalisations, sums and rectifiers are part of the convolutions before them, zeros
    around the picture of those behind (see `fcn.fusion.steps`). For each size of the input every
    product is planned and its kernel packed once; results are written to buffers that serve
    again when no later step reads them. The arrays of the graph are read when a size first
    comes: of a graph that changes, make a new program.

    Parameters
    ----------
    graph : Graph
        Its arrays say where it runs, NumPy's or CuPy's.
    until : str, optional
        The node whose result is returned; default: the last.
    algorithm : {None, "direct"}
        None takes what is fastest; "direct" gives the same bits for a tile as for the whole.
    precision : {"float32", "tf32"}
        What float32 products are rounded to; "tf32" on CUDA only.
    dtype : {"float32", "bfloat16", "float16"}
        Of what is computed with and kept in buffers; the half types on CUDA only.
    sizes : int
        Plans of how many sizes of the input are kept at most, the last ones: at least one, and
        fewer than that where the kernels are large.
    share : bool
        Whether to take less memory on the CPU, and some more time: the graph's kernels and those
        that the plans keep are the same, read-only from then on, and large ones of Winograd's
        are transformed in every call in place of being kept so. No bit of a result changes.

    Notes
    -----
    Several threads may call it; one at a time runs.

    Examples
    --------
    >>> from fcn.graph import Node
    >>> from fcn.layers import Conv, ReLU
    >>> kernel = np.full((1, 1, 1, 1), -1, np.float32)
    >>> graph = Graph({"conv": Node(Conv(kernel), (INPUT,)), "relu": Node(ReLU(), ("conv",))}, 1)
    >>> program = Program(graph)
    >>> len(program.steps), program(np.array([[[[1], [-2]]]], np.float32)).ravel()
    (1, array([0., 2.], dtype=float32))
    """

    def __init__(
        self,
        graph: Graph,
        until: str | None = None,
        *,
        algorithm: str | None = None,
        precision: str = "float32",
        dtype: str = "float32",
        sizes: int = SIZES,
        share: bool = False,
    ) -> None:
        for name, value, known in (
            ("algorithm", algorithm, ALGORITHMS),
            ("precision", precision, PRECISIONS),
            ("dtype", dtype, DTYPES),
        ):
            if value not in known:
                expected = ", ".join(map(repr, known))
                raise ValueError(f"{name}: expected one of {expected}, got {value!r}")
        self.xp = next((namespace(array) for array in graph.arrays().values()), np)
        for name, value in (("precision", precision), ("dtype", dtype)):
            if self.xp is np and value != "float32":
                raise ValueError(f"{name}: expected 'float32' on the CPU, got {value!r}")
        self.graph = graph
        self.until = graph.output if until is None else until
        if self.until not in graph.nodes:
            raise ValueError(f"until: expected the name of a node, got {self.until!r}")
        self.steps = steps(graph, self.until)
        self._settings = Settings(self.xp, algorithm, precision, dtype, share)
        self._plans: collections.OrderedDict[tuple[int, int], _Plan] = collections.OrderedDict()
        self._sizes = max(1, min(sizes, MOST_BYTES // max(1, self._plan_bytes())))
        self._lock = threading.Lock()

    def __call__(
        self,
        x: Array,
        out: Array | None = None,
        *,
        widen: bool = True,
        each: Callable[[Step], None] | None = None,
    ) -> Array:
        """Return the node's result for ``(n, h, w, channels)`` in float32, a new array.

        Parameters
        ----------
        x : ndarray
            Of any ``h`` and ``w`` of at least 1.
        out : ndarray, optional
            Where to write the result instead, of its shape and dtype: the program's own, which
            is float32 but with half types.
        widen : bool
            Whether a new array of a half type is made float32.
        each : callable, optional
            Called with every step when it has run: to time them.

        Raises
        ------
        TypeError, ValueError
            For another `x`; naming the node whose inputs do not fit.
        """
        self._check(x)
        with self._lock:
            return self._plan(x.shape).run(x, out, widen, each)

    def _plan_bytes(self) -> int:
        """Return about what the kernels of a plan take, at most.

        That is a copy where none is shared, and packed, Winograd's fourfold.
        """
        total, copies = 0, 0 if self._settings.share and self.xp is np else 1
        for layer in (step.layer for step in self.steps):
            if isinstance(layer, Conv | ConvTranspose):
                wide = layer.kernel.shape[:2] == (3, 3) and layer.strides == (1, 1)
                packed = 4 if wide and self._settings.algorithm != "direct" else 1
                total += layer.kernel.nbytes * (copies + packed)
        return total

    def _check(self, x: Array) -> None:
        try:
            found = namespace(x)
        except TypeError as error:
            raise TypeError(f"x: {error}") from None
        if found is not self.xp:
            raise TypeError(
                f"x: expected an array of {self.xp.__name__}, where the weights are, "
                f"got one of {found.__name__}"
            )
        channels = self.graph.channels
        if x.dtype != np.float32 or x.ndim != 4 or x.shape[3] != channels or 0 in x.shape[1:3]:
            raise ValueError(
                f"x: expected float32 of shape (n, h, w, {channels}), h and w at least 1, "
                f"got {x.dtype} of shape {x.shape}"
            )

    def _plan(self, shape: Shape) -> _Plan:
        size = shape[1:3]
        plan = self._plans.get(size)
        if plan is None:
            while len(self._plans) >= self._sizes:
                self._plans.popitem(last=False)
            plan = self._plans[size] = _Plan(self, shape)
        self._plans.move_to_end(size)
        return plan

    def shapes(self, shape: Shape) -> dict[str, Shape]:
        """Return the shape of what each step gives, by its name."""
        found = self.graph.shapes(shape)
        return {step.name: found[step.name] for step in self.steps}

    def buffers(self, shape: Shape) -> tuple[list[int], dict[str, int]]:
        """Return the entries of each buffer, and which one each step but the last writes to.

        What a step writes to serves again once the last step that reads it has run.
        """
        shapes = self.shapes(shape)
        last_read = {source: at for at, step in enumerate(self.steps) for source in step.inputs}
        lengths: list[int] = []
        free: list[int] = []
        places: dict[str, int] = {}
        for at, step in enumerate(self.steps[:-1]):
            length = math.prod(shapes[step.name])
            # The smallest that is large enough, or else the largest, which grows.
            fitting = sorted(free, key=lambda b: (lengths[b] < length, abs(lengths[b] - length)))
            if fitting:
                place = fitting[0]
                free.remove(place)
                lengths[place] = max(lengths[place], length)
            else:
                place = len(lengths)
                lengths.append(length)
            places[step.name] = place
            free += {places[s] for s in step.inputs if s in places and last_read[s] == at}
        return lengths, places


@dataclasses.dataclass
class _Bound:
    """The arrays of one batch size: where each step writes."""

    batch: int
    buffers: list[Array]
    outs: dict[str, Array]


class _Plan:
    """All that is known of a program for one size of the input."""

    def __init__(self, program: Program, shape: Shape) -> None:
        self.program, self.settings = program, program._settings
        self.size = shape[1:]
        graph = program.graph
        one = (1, *shape[1:])
        shapes = {INPUT: one} | graph.shapes(one)
        self.runs = [planned(step, shapes, self.settings) for step in program.steps]
        self.output = shapes[program.until]
        self._bound: _Bound | None = None

    def run(
        self, x: Array, out: Array | None, widen: bool, each: Callable[[Step], None] | None
    ) -> Array:
        """Return the result of a batch."""
        program, xp = self.program, self.settings.xp
        if self._bound is None or self._bound.batch != len(x):
            self._bound = None  # before the new ones are made
            self._bound = self._bind(len(x))
        outs = self._bound.outs
        shape = (len(x), *self.output[1:])
        dtype = dtype_of(self.settings.dtype)
        result = empty(xp, shape, self.settings.dtype) if out is None else out
        if result.shape != shape or result.dtype != dtype:
            raise ValueError(
                f"out: expected {dtype} of shape {shape}, got {result.dtype} of {result.shape}"
            )
        first = narrowed(x, self.settings.dtype)
        for step, run in zip(program.steps, self.runs, strict=True):
            inputs = [first if name == INPUT else outs[name] for name in step.inputs]
            run(*inputs, result if step is program.steps[-1] else outs[step.name])
            if each is not None:
                each(step)
        return widened(result) if widen and out is None else result

    def _bind(self, batch: int) -> _Bound:
        program, settings = self.program, self.settings
        shape = (batch, *self.size)
        lengths, places = program.buffers(shape)
        shapes = program.shapes(shape)
        buffers = [empty(settings.xp, (length,), settings.dtype) for length in lengths]
        outs = {
            name: buffers[place][: math.prod(shapes[name])].reshape(shapes[name])
            for name, place in places.items()
        }
        return _Bound(batch, buffers, outs)
