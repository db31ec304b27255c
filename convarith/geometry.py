"""`ConvGeometry`: the shape calculus of a convolution, in integers only."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any, SupportsIndex

from .axis import Axis, Tap, input_range
from .padding import Padding, parse_padding, resolve_padding
from .validate import PerAxis, integer, is_sequence, per_axis

INT32_MAX = 2**31 - 1


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class ConvGeometry:
    """The geometry of a convolution: every size that follows from its arguments.

    Output index ``o`` reads input index ``i = o*stride + k*dilation - low`` for every kernel
    index ``k``, along each axis; an ``i`` outside the input reads zero.

    Parameters
    ----------
    input_size, kernel_size : int or tuple of int
        The spatial sizes (no batch, no channels). An integer stands for every axis alike;
        two integers make one axis. Input sizes may be 0, kernel sizes are at least 1.
    strides, dilations : int or tuple of int
        At least 1.
    padding : str, int, tuple of int or tuple of (int, int)
        ``"VALID"`` pads nothing; ``"SAME"`` pads so that the output has ``ceil(size/stride)``
        entries, the odd one high (``"SAME_LOWER"``: low); an integer pads both sides of every
        axis; a tuple gives, for each axis, an integer or ``(low, high)``. A negative amount
        crops.
    groups : int
        The channels are split into this many groups that do not mix.
    in_channels, out_channels : int
        Multiples of `groups`.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what was expected and what came.

    Notes
    -----
    Sizes are Python integers without bound. Two geometries are equal, and hash alike, when
    their numbers are: ``padding`` is stored resolved, words become numbers.
    The formulas are those of Dumoulin & Visin, "A guide to convolution arithmetic for deep
    learning" (arXiv:1603.07285); `explain` writes them out.

    Examples
    --------
    >>> g = ConvGeometry((5, 5), 3, strides=2, padding=1)
    >>> g.output_size
    (3, 3)
    >>> ConvGeometry((320, 480), 64, strides=32, padding="SAME")
    ConvGeometry((320, 480), (64, 64), strides=(32, 32), padding=((16, 16), (16, 16)))
    >>> ConvGeometry(2**62, 3).output_size
    (4611686018427387902,)
    """

    input_size: tuple[int, ...]
    kernel_size: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    groups: int
    in_channels: int
    out_channels: int

    def __init__(
        self,
        input_size: PerAxis,
        kernel_size: PerAxis,
        *,
        strides: PerAxis = 1,
        dilations: PerAxis = 1,
        padding: Padding = "VALID",
        groups: SupportsIndex = 1,
        in_channels: SupportsIndex = 1,
        out_channels: SupportsIndex = 1,
    ) -> None:
        rank = spatial_rank(input_size=input_size, kernel_size=kernel_size)
        fields: dict[str, Any] = {
            "input_size": per_axis("input_size", input_size, rank, minimum=0),
            "kernel_size": per_axis("kernel_size", kernel_size, rank, minimum=1),
            "strides": per_axis("strides", strides, rank, minimum=1),
            "dilations": per_axis("dilations", dilations, rank, minimum=1),
            "groups": integer("groups", groups, minimum=1),
            "in_channels": integer("in_channels", in_channels, minimum=1),
            "out_channels": integer("out_channels", out_channels, minimum=1),
        }
        for name in ("in_channels", "out_channels"):
            if fields[name] % fields["groups"]:
                raise ValueError(
                    f"groups: expected a divisor of {name} = {fields[name]}, got {fields['groups']}"
                )
        fields["padding"] = resolve_padding(
            parse_padding(padding, rank),
            *(fields[name] for name in ("input_size", "kernel_size", "strides", "dilations")),
        )
        for name, value in fields.items():
            object.__setattr__(self, name, value)  # the dataclass is frozen

    @classmethod
    def of_transpose(
        cls,
        input_size: PerAxis,
        kernel_size: PerAxis,
        *,
        output_size: PerAxis | None = None,
        strides: PerAxis = 1,
        dilations: PerAxis = 1,
        padding: Padding = "VALID",
        groups: SupportsIndex = 1,
        in_channels: SupportsIndex = 1,
        out_channels: SupportsIndex = 1,
    ) -> ConvGeometry:
        """Return the geometry whose *transpose* maps `input_size` to `output_size`.

        Sizes and channels are named as the transposed map has them, as in `conv_transpose`:
        the result's ``output_size`` is the `input_size` given here, its ``input_size`` the
        `output_size`. Several sizes serve where the stride is above 1; without `output_size`
        it is ``input_size * stride`` for the SAME paddings and otherwise the smallest, ``s(o - 1)
        + ke - low - high`` (for ``o = 0`` too, where any smaller size serves as well, but at
        least 0). Where the padding covers the kernel, no convolution has an empty output; an
        empty `input_size` then makes an empty `output_size`, the one case in which the
        geometry's ``output_size`` is not what was asked for.

        Raises
        ------
        ValueError
            Where no convolution of an input of `output_size` gives `input_size`; the message
            gives the range that does.

        Examples
        --------
        >>> ConvGeometry.of_transpose(3, 3, strides=2).input_size
        (7,)
        >>> ConvGeometry.of_transpose(3, 3, strides=2, output_size=8).input_size
        (8,)
        >>> ConvGeometry.of_transpose(3, 3, strides=2, output_size=9)
        Traceback (most recent call last):
        ...
        ValueError: output_size[0]: expected 7 to 8 (the sizes whose convolution gives 3), got 9
        """
        rank = spatial_rank(input_size=input_size, kernel_size=kernel_size)
        outputs = per_axis("input_size", input_size, rank, minimum=0)
        kernels = per_axis("kernel_size", kernel_size, rank, minimum=1)
        steps = per_axis("strides", strides, rank, minimum=1)
        spreads = per_axis("dilations", dilations, rank, minimum=1)
        pads = parse_padding(padding, rank)
        wanted: tuple[int | None, ...] = (None,) * rank
        if output_size is not None:
            wanted = per_axis("output_size", output_size, rank, minimum=0)
        sizes: list[int] = []
        for axis, (o, k, s, d, size) in enumerate(
            zip(outputs, kernels, steps, spreads, wanted, strict=True)
        ):
            ke = (k - 1) * d + 1
            if pads in ("SAME", "SAME_LOWER"):
                smallest, largest, default = (o - 1) * s + 1, o * s, o * s
            else:
                total = 0 if isinstance(pads, str) else sum(pads[axis])
                smallest, largest = input_range(o, ke, s, total)
                default = smallest if o else max(0, ke - s - total)
            if largest < 0 or (size is None and default < 0):
                raise ValueError(
                    f"padding: {pads[axis]} crops all {smallest + total} entries of the transpose "
                    f"along axis {axis}, leaving {smallest}"
                )
            smallest = max(0, smallest)
            if size is None:
                size = default
            elif not smallest <= size <= largest:
                raise ValueError(
                    f"output_size[{axis}]: expected {smallest} to {largest} "
                    f"(the sizes whose convolution gives {o}), got {size}"
                )
            sizes.append(size)
        return cls(
            tuple(sizes),
            kernels,
            strides=steps,
            dilations=spreads,
            padding=pads,  # type: ignore[arg-type]
            groups=groups,
            in_channels=out_channels,
            out_channels=in_channels,
        )

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """The arithmetic of each spatial axis by itself."""
        return tuple(
            Axis(i, k, s, d, low, high)
            for i, k, s, d, (low, high) in zip(
                self.input_size,
                self.kernel_size,
                self.strides,
                self.dilations,
                self.padding,
                strict=True,
            )
        )

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(self.input_size)

    @cached_property
    def output_size(self) -> tuple[int, ...]:
        """``floor((i + low + high - ke)/s) + 1`` an axis, 0 where the kernel does not fit."""
        return tuple(axis.output for axis in self.axes)

    @cached_property
    def effective_kernel_size(self) -> tuple[int, ...]:
        """The span of the dilated kernel, ``(k - 1)d + 1`` an axis."""
        return tuple(axis.effective_kernel for axis in self.axes)

    @cached_property
    def unread(self) -> tuple[int, ...]:
        """How many inputs at the end of each axis no output reads: zero columns of W."""
        return tuple(axis.unread for axis in self.axes)

    @cached_property
    def full_size(self) -> tuple[int, ...]:
        """The transpose's size before cropping, ``max(0, s(o - 1) + ke)`` an axis."""
        return tuple(axis.full for axis in self.axes)

    @cached_property
    def cropped_size(self) -> tuple[int, ...]:
        """The transpose's size by itself, ``max(0, s(o - 1) + ke - low - high)`` an axis."""
        return tuple(axis.cropped for axis in self.axes)

    @cached_property
    def input_size_range(self) -> tuple[tuple[int, int], ...]:
        """The smallest and the largest input with this output and these numbers as padding."""
        ranges = (
            input_range(a.output, a.effective_kernel, a.stride, a.low + a.high) for a in self.axes
        )
        return tuple((max(0, smallest), largest) for smallest, largest in ranges)

    @cached_property
    def input_shape(self) -> tuple[int, ...]:
        """``(*input_size, in_channels)``, the shape of one input without its batch axis."""
        return (*self.input_size, self.in_channels)

    @cached_property
    def output_shape(self) -> tuple[int, ...]:
        """``(*output_size, out_channels)``, the shape of one output without its batch axis."""
        return (*self.output_size, self.out_channels)

    @cached_property
    def kernel_shape(self) -> tuple[int, ...]:
        """``(*kernel_size, in_channels // groups, out_channels)``."""
        return (*self.kernel_size, self.in_channels // self.groups, self.out_channels)

    @cached_property
    def matrix_shape(self) -> tuple[int, int]:
        """The rows and columns of W: the entries of one output and of one input."""
        return math.prod(self.output_shape), math.prod(self.input_shape)

    @cached_property
    def nnz(self) -> int:
        """The stored entries of W, in closed form."""
        channel_pairs = self.in_channels // self.groups * self.out_channels
        return math.prod(axis.nnz for axis in self.axes) * channel_pairs

    @cached_property
    def index_bits(self) -> int:
        """32 where every index and count of W fits, else 64."""
        return 32 if max(self.nnz, *self.matrix_shape) <= INT32_MAX else 64

    def matrix_nbytes(self, itemsize: int = 8) -> int:
        """Return the bytes of W as CSR with values of `itemsize` bytes.

        >>> ConvGeometry((4, 4), 3).matrix_nbytes(8)  # 4 rows of 9 entries
        452
        """
        index = self.index_bits // 8
        return self.nnz * (itemsize + index) + (self.matrix_shape[0] + 1) * index

    def taps(self) -> Iterator[tuple[Tap, ...]]:
        """Yield the kernel entries that reach the input, in C order, one `Tap` an axis."""
        yield from itertools.product(*(tuple(axis.taps()) for axis in self.axes))

    def __repr__(self) -> str:
        parts = [repr(self.input_size), repr(self.kernel_size)]
        plain = ConvGeometry(self.input_size, self.kernel_size)
        for field in dataclasses.fields(self)[2:]:
            value = getattr(self, field.name)
            if value != getattr(plain, field.name):
                parts.append(f"{field.name}={value!r}")
        return f"ConvGeometry({', '.join(parts)})"

    def explain(self) -> str:
        """Return the arithmetic with the numbers put in, line by line; a prompt prints it.

        Examples
        --------
        >>> ConvGeometry(5, 3, strides=2, padding=1).explain()
        axis 0: i = 5, k = 3, s = 2, d = 1, low = 1, high = 1
          kernel       ke = (k - 1)*d + 1 = (3 - 1)*1 + 1 = 3
          output       o = floor((i + low + high - ke)/s) + 1 = floor((5 + 1 + 1 - 3)/2) + 1 = 3
          unread       a = (i + low + high - ke) mod s = 4 mod 2 = 0; clip(a - high, 0, i) = 0
          transpose    s*(o - 1) + ke = 2*(3 - 1) + 3 = 7; cropped by low + high: 5
          same output  i = 5 to 6
        channels: 1 -> 1 in 1 group
        W: 3 x 5, 7 entries, 100 bytes in float64
        """
        from .explanation import explain

        return explain(self)


def spatial_rank(**sizes: object) -> int:
    """Return the rank that the first of the named sizes written a number an axis gives, else 1."""
    for name, size in sizes.items():
        if is_sequence(size):
            rank = len(size)
            if rank == 0:
                raise ValueError(f"{name}: expected at least one spatial axis, got {size!r}")
            return rank
    return 1
