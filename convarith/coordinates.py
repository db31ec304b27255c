"""Where an output lies over the input, through any chain of layers, in exact rationals.

Along an axis, a convolution or a pooling makes output ``o`` of the inputs ``o*s - low`` to
``o*s - low + ke - 1``; a transposed one makes output ``u`` of the inputs ``(u + low - ke + 1)/s``
to ``(u + low)/s``. Both are affine, and so are chains of them.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple

from .geometry import ConvGeometry
from .padding import Padding, parse_padding
from .validate import PerAxis, is_sequence, per_axis

#: The most outputs times layers of one period, every one of which is looked at.
MOST_STEPS = 2**18


@dataclasses.dataclass(frozen=True)
class Window:
    """A convolution, a pooling or a transposed convolution, without the sizes it is applied to.

    Parameters
    ----------
    kernel_size, strides, dilations : int or tuple of int
        At least 1; an integer stands for every axis alike.
    padding : int, tuple of int or tuple of (int, int)
        As `ConvGeometry` takes numbers; what the transposed one crops.
    transposed : bool
    ceil_mode : bool
        Whether a last window that only begins within the (low-padded) input counts, as in
        Caffe's pooling and in torch's with ``ceil_mode=True``. It changes sizes alone.
    """

    kernel_size: PerAxis
    strides: PerAxis = 1
    dilations: PerAxis = 1
    padding: Padding = 0
    transposed: bool = False
    ceil_mode: bool = False

    def __post_init__(self) -> None:
        for name in ("transposed", "ceil_mode"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name}: expected a bool, got {getattr(self, name)!r}")
        if self.transposed and self.ceil_mode:
            raise ValueError("ceil_mode: expected False for a transposed window, got True")
        if isinstance(self.padding, str):
            raise ValueError(f"padding: expected numbers, got {self.padding!r}, which needs a size")
        for name in ("kernel_size", "strides", "dilations", "padding"):
            value = getattr(self, name)
            if is_sequence(value):  # tuples, so that equal windows are equal and hash alike
                value = tuple(tuple(v) if is_sequence(v) else v for v in value)
                object.__setattr__(self, name, value)
        self.steps(self.rank or 1)

    @property
    def rank(self) -> int | None:
        """The number of axes, None where every axis is alike."""
        for value in (self.kernel_size, self.strides, self.dilations, self.padding):
            if is_sequence(value):
                return len(value)
        return None

    def steps(self, rank: int) -> tuple[Step, ...]:
        """Return the step along each of `rank` axes."""
        kernels = per_axis("kernel_size", self.kernel_size, rank, minimum=1)
        strides = per_axis("strides", self.strides, rank, minimum=1)
        dilations = per_axis("dilations", self.dilations, rank, minimum=1)
        padding: Any = parse_padding(self.padding, rank)
        return tuple(
            Step((k - 1) * d + 1, s, low, high, self.transposed, self.ceil_mode)
            for k, s, d, (low, high) in zip(kernels, strides, dilations, padding, strict=True)
        )


class Step(NamedTuple):
    """One layer along one axis, from its output to its input."""

    effective_kernel: int
    stride: int
    low: int
    high: int
    transposed: bool
    ceil_mode: bool

    @property
    def jump(self) -> Fraction:
        """How far the input moves when the output moves by one."""
        return Fraction(1, self.stride) if self.transposed else Fraction(self.stride)

    def center(self, o: Fraction) -> Fraction:
        """Return the middle of what the kernel spans at output `o`."""
        middle = Fraction(self.effective_kernel - 1, 2) - self.low
        return (o - middle) / self.stride if self.transposed else o * self.stride + middle

    def inputs(self, first: int, last: int) -> tuple[int, int]:
        """Return the first and the last input that outputs `first` to `last` read."""
        reach = self.effective_kernel - 1
        if self.transposed:
            return -((reach - first - self.low) // self.stride), (last + self.low) // self.stride
        return first * self.stride - self.low, last * self.stride - self.low + reach

    def tile(self, first: int, last: int) -> tuple[int, int]:
        """Return the inputs on which alone this layer still has outputs `first` to `last`.

        More than it reads where it crops: of a tile it crops the ends as well.
        """
        reach, s, cropped = self.effective_kernel - 1, self.stride, self.low + self.high
        start, stop = self.inputs(first, last)
        if self.transposed:
            start = min(start, first // s)
            return start, max(start, stop, -((reach - last - cropped) // s))
        return min(start, first * s), stop + max(0, -self.high)

    def output(self, size: int) -> int:
        """Return the output's size, as `ConvGeometry` has it; padding alone is an input too."""
        ke, s = self.effective_kernel, self.stride
        slack = size + self.low + self.high - ke
        if self.transposed:
            total = self.low + self.high
            return max(0, s * (size - 1) + ke - total) if size else max(0, ke - s - total)
        if self.ceil_mode:
            count = -(-slack // s) + 1
            return max(0, count - ((count - 1) * s >= size + self.low))
        return max(0, slack // s + 1)


#: From the first and last output of a step to those of its input, `Step.inputs` or `Step.tile`.
Interval = Callable[[Step, int, int], tuple[int, int]]


class CoordinateMap:
    """From an index of the last layer's output to the interval of the input that it reads.

    Parameters
    ----------
    layers : iterable of Window or ConvGeometry
        From the input to the output. None at all is the identity, along one axis.

    Attributes
    ----------
    jump : tuple of Fraction
        How far the input moves when the output moves by one, an axis.
    offset : tuple of Fraction
        The middle of what output 0 reads: output ``o`` lies over input ``o*jump + offset``.
    receptive_field : tuple of int
        The inputs from the first to the last that one output reads; the most of them, where
        transposed layers make outputs differ.
    period : tuple of (int, int)
        The outputs after which all repeats, and how many inputs further: only tiles that begin
        at a multiple of the latter see the same layers' phases as the whole.
    halo : tuple of (int, int)
        What a tile needs before and after the inputs under its outputs, for the layers to give
        on ``[floor(a*jump) - before, ceil(b*jump) + after)`` alone the outputs ``[a, b)``.

    Notes
    -----
    No interval leaves out what is read. All are exact where no layer that is transposed, or comes
    after such a one, skips entries (by dilations, or by strides beyond its kernel's span); else
    one may be too wide. They know nothing of the input's ends: what a transposed layer crops
    there is zero for the layers behind it, and is not for a tile that goes on beyond.

    Long, Shelhamer & Darrell, "Fully convolutional networks for semantic segmentation"
    (arXiv:1411.4038); Araujo, Norris & Sim, "Computing receptive fields of convolutional
    neural networks" (Distill, 2019).

    Examples
    --------
    >>> block = [Window(3, padding=1), Window(3, padding=1), Window(2, strides=2)]
    >>> net = CoordinateMap(block * 2)
    >>> net.receptive_field, net.jump, net.offset
    ((16,), (Fraction(4, 1),), (Fraction(3, 2),))
    >>> up = net.then(Window(8, strides=4, transposed=True))
    >>> up.jump, up.offset, up.halo
    ((Fraction(1, 1),), (Fraction(-2, 1),), ((13, 9),))
    """

    def __init__(self, layers: Iterable[Window | ConvGeometry] = ()) -> None:
        if not isinstance(layers, Iterable):
            raise TypeError(f"layers: expected an iterable of layers, got {layers!r}")
        self.layers = tuple(layers)
        for index, layer in enumerate(self.layers):
            if not isinstance(layer, (Window, ConvGeometry)):
                raise TypeError(
                    f"layers[{index}]: expected a Window or ConvGeometry, got {layer!r}"
                )
        ranks = {layer.rank for layer in self.layers if layer.rank is not None}
        if len(ranks) > 1:
            raise ValueError(f"layers: expected as many axes in each, got {sorted(ranks)}")
        #: The number of axes.
        self.rank: int = ranks.pop() if ranks else 1
        steps = [_window(layer).steps(self.rank) for layer in self.layers]
        self._steps: tuple[tuple[Step, ...], ...] = (
            tuple(zip(*steps, strict=True)) if steps else ((),) * self.rank
        )

    def __repr__(self) -> str:
        return f"CoordinateMap({list(self.layers)!r})"

    def then(self, *layers: Window | ConvGeometry) -> CoordinateMap:
        """Return the map through further layers."""
        return CoordinateMap((*self.layers, *layers))

    @cached_property
    def jump(self) -> tuple[Fraction, ...]:
        return tuple(math.prod((s.jump for s in steps), start=Fraction(1)) for steps in self._steps)

    @cached_property
    def offset(self) -> tuple[Fraction, ...]:
        offsets = []
        for steps in self._steps:
            at = Fraction(0)
            for step in reversed(steps):
                at = step.center(at)
            offsets.append(at)
        return tuple(offsets)

    @cached_property
    def period(self) -> tuple[tuple[int, int], ...]:
        periods = []
        for steps, jump in zip(self._steps, self.jump, strict=True):
            outputs, so_far = 1, Fraction(1)
            for step in reversed(steps):
                so_far *= step.jump
                outputs = math.lcm(outputs, so_far.denominator)
            periods.append((outputs, int(outputs * jump)))
        return tuple(periods)

    @cached_property
    def receptive_field(self) -> tuple[int, ...]:
        return tuple(
            max(last + 1 - first for _, first, last in self._phases(axis, Step.inputs))
            for axis in range(self.rank)
        )

    @cached_property
    def halo(self) -> tuple[tuple[int, int], ...]:
        halos = []
        for axis, jump in enumerate(self.jump):
            phases = self._phases(axis, Step.tile)
            before = max(math.floor(o * jump) - first for o, first, _ in phases)
            after = max(last + 1 - math.ceil((o + 1) * jump) for o, _, last in phases)
            halos.append((max(0, before), max(0, after)))
        return tuple(halos)

    def _phases(self, axis: int, interval: Interval) -> list[tuple[int, int, int]]:
        """Return every output of one period with its interval of the input."""
        outputs, _ = self.period[axis]
        most = MOST_STEPS // max(1, len(self.layers))
        if outputs > most:
            raise ValueError(
                f"layers: expected a pattern that repeats within {most} outputs for "
                f"{len(self.layers)} layers, along axis {axis} it does after {outputs}"
            )
        return [(o, *self._interval(axis, o, o, interval)) for o in range(outputs)]

    def _interval(self, axis: int, first: int, last: int, interval: Interval) -> tuple[int, int]:
        for step in reversed(self._steps[axis]):
            if first <= last:
                first, last = interval(step, first, last)
            else:  # a window fell between the entries of a transposed layer: where, all the same
                first = interval(step, first, first)[0]
                last = first - 1
        return first, max(first - 1, last)

    def inputs(self, start: PerAxis, stop: PerAxis) -> tuple[tuple[int, int], ...]:
        """Return the inputs that outputs ``[start, stop)`` read, as ``(start, stop)`` an axis.

        They lie partly outside of the input where layers are padded; nothing read is an empty
        interval.

        >>> CoordinateMap([Window(3, padding=1), Window(2, strides=2)]).inputs(0, 10)
        ((-1, 21),)
        """
        starts = per_axis("start", start, self.rank)
        stops = per_axis("stop", stop, self.rank)
        found = []
        for axis, (a, b) in enumerate(zip(starts, stops, strict=True)):
            if a > b:
                raise ValueError(f"stop[{axis}]: expected at least start[{axis}] = {a}, got {b}")
            first, last = self._interval(axis, a, b - 1, Step.inputs)
            found.append((first, last + 1))
        return tuple(found)

    def output_size(self, input_size: PerAxis) -> tuple[int, ...]:
        """Return the size of the last layer's output, 0 where it has none.

        >>> CoordinateMap([Window((3, 3)), Window(2, strides=2)]).output_size((9, 10))
        (3, 4)
        """
        sizes = per_axis("input_size", input_size, self.rank, minimum=0)
        return tuple(_sizes(steps, i)[-1] for steps, i in zip(self._steps, sizes, strict=True))

    def minimal_padding(self, input_size: PerAxis = 1) -> tuple[int, ...]:
        """Return the least padding of the first layer, on both sides, for any output at all.

        With it no layer's output is empty for inputs of at least `input_size`, along each axis.

        Raises
        ------
        ValueError
            Where the first layer is transposed: it crops.

        >>> CoordinateMap([Window(3), Window(7)]).minimal_padding()
        (4,)
        """
        sizes = per_axis("input_size", input_size, self.rank, minimum=1)
        return tuple(_least_padding(steps, i) for steps, i in zip(self._steps, sizes, strict=True))

    def alignment(self, other: CoordinateMap | None = None) -> tuple[Fraction, ...]:
        """Return which output of this map lies over output 0 of `other`, or over input 0.

        Where two paths of a network meet, cropping the one by this aligns it with the other: the
        crops of Long, Shelhamer & Darrell's networks.

        Raises
        ------
        ValueError
            Where the two do not move alike.

        Examples
        --------
        >>> down = CoordinateMap([Window(3, padding=100), Window(2, strides=2)])
        >>> down.then(Window(4, strides=2, transposed=True)).alignment()
        (Fraction(100, 1),)
        """
        if other is None:
            other = CoordinateMap([Window((1,) * self.rank)])
        elif not isinstance(other, CoordinateMap):
            raise TypeError(f"other: expected a CoordinateMap, got {other!r}")
        if other.jump != self.jump:
            jumps = [tuple(map(str, m.jump)) for m in (self, other)]
            raise ValueError(f"other: expected jumps of {jumps[0]}, got {jumps[1]}")
        return tuple(
            (b - a) / jump for a, b, jump in zip(self.offset, other.offset, self.jump, strict=True)
        )


def _sizes(steps: tuple[Step, ...], size: int) -> list[int]:
    """Return the size of the input and of every layer's output."""
    sizes = [size]
    for step in steps:
        sizes.append(step.output(sizes[-1]))
    return sizes


def _least_padding(steps: tuple[Step, ...], size: int) -> int:
    if not steps:
        return 0
    if steps[0].transposed:
        raise ValueError("layers[0]: expected one that pads, got a transposed one")

    def has_output(padding: int) -> bool:
        return 0 not in _sizes((steps[0]._replace(low=padding, high=padding), *steps[1:]), size)

    enough = 1
    while not has_output(enough):
        enough *= 2
    return bisect.bisect_left(range(enough), True, key=has_output)


def _window(layer: Window | ConvGeometry) -> Window:
    if isinstance(layer, Window):
        return layer
    return Window(
        layer.kernel_size,
        layer.strides,
        layer.dilations,
        layer.crops if layer.transposed else layer.padding,
        layer.transposed,
    )
