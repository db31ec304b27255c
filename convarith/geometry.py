"""`ConvGeometry`: the shape calculus of a convolution, in integers only."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from fractions import Fraction
from functools import cached_property
from typing import Any, SupportsIndex

from . import inverse
from .axis import Axis, Tap
from .padding import Padding, parse_padding, resolve_padding
from .validate import PerAxis, integer, per_axis, spatial_rank

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

    Attributes
    ----------
    output_size : tuple of int
        ``floor((i + low + high - ke)/s) + 1`` an axis, 0 where the kernel does not fit.
    transposed : bool
        Whether this is the transpose of a convolution, as `adjoint` gives it.

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
    output_size: tuple[int, ...]
    transposed: bool

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
        self.__dict__.update(fields, transposed=False)  # the dataclass is frozen
        self.__dict__["output_size"] = tuple(axis.output for axis in self.axes)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Found once: plans are looked up by geometries, at every call."""
        return hash(tuple(getattr(self, field.name) for field in dataclasses.fields(self)))

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
        spatial: dict[str, Any] = {
            "strides": strides,
            "dilations": dilations,
            "padding": padding,
        }
        ranges, default = inverse.input_ranges(
            input_size, kernel_size, **spatial, name="input_size"
        )
        outputs = per_axis("input_size", input_size, len(ranges))
        sizes = default
        if output_size is not None:
            sizes = per_axis("output_size", output_size, len(ranges), minimum=0)
        for axis, (o, size) in enumerate(zip(outputs, sizes, strict=True)):
            smallest, largest = ranges[axis]
            if o == 0:
                largest = max(0, largest)  # an empty result, though no convolution is empty
            if size < 0 or largest < 0:
                raise ValueError(
                    f"padding: {padding!r} crops more than the transpose has along axis {axis}, "
                    f"leaving {smallest}"
                )
            if not max(0, smallest) <= size <= largest:
                raise ValueError(
                    f"output_size[{axis}]: expected {max(0, smallest)} to {largest} "
                    f"(the sizes whose convolution gives {o}), got {size}"
                )
        return cls(
            sizes,
            kernel_size,
            **spatial,
            groups=groups,
            in_channels=out_channels,
            out_channels=in_channels,
        )

    @staticmethod
    def input_sizes(
        output_size: PerAxis,
        kernel_size: PerAxis,
        *,
        strides: PerAxis = 1,
        dilations: PerAxis = 1,
        padding: Padding = "VALID",
    ) -> tuple[range, ...]:
        """Return all input sizes with this output size, one range a spatial axis.

        Examples
        --------
        >>> ConvGeometry.input_sizes(5, 3, strides=2)
        (range(11, 13),)
        >>> ConvGeometry.input_sizes((5, 1), 3, strides=2, padding="SAME")
        (range(9, 11), range(1, 3))
        """
        ranges, _ = inverse.input_ranges(
            output_size, kernel_size, strides=strides, dilations=dilations, padding=padding
        )
        return tuple(range(max(0, first), max(0, last + 1)) for first, last in ranges)

    @staticmethod
    def transposed_paddings(
        input_size: PerAxis,
        kernel_size: PerAxis,
        output_size: PerAxis,
        *,
        strides: PerAxis = 1,
        dilations: PerAxis = 1,
    ) -> tuple[Iterator[tuple[int, tuple[int, int]]], ...]:
        """Yield all ``(output_padding, (low, high))`` of 0 or more that lead to `output_size`.

        One iterator an axis. `input_size`, at least 1, is what the transpose takes; its output
        has ``s(i - 1) + ke - low - high + output_padding`` entries, with an output padding below
        ``max(s, d)``. The even splits come first in each: those with ``low == high`` are
        what torch's ``padding`` and ``output_padding`` can say.

        Examples
        --------
        >>> (choices,) = ConvGeometry.transposed_paddings(5, 3, 10, strides=2)
        >>> list(choices)
        [(0, (0, 1)), (0, (1, 0)), (1, (1, 1)), (1, (0, 2)), (1, (2, 0))]
        """
        return inverse.transposed_paddings(
            input_size, kernel_size, output_size, strides=strides, dilations=dilations
        )

    @property
    def adjoint(self) -> ConvGeometry:
        """The geometry of the transposed map: sizes and channels exchanged; an involution.

        Strides, dilations, paddings and the kernel's shape stay those of the convolution,
        as `conv_transpose` takes them.

        >>> g = ConvGeometry(5, 3, strides=2, in_channels=4)
        >>> g.adjoint.input_size, g.adjoint.output_size, g.adjoint.out_channels
        ((2,), (5,), 4)
        >>> g.adjoint.transposed, g.adjoint.adjoint == g
        (True, True)
        """
        other = object.__new__(type(self))
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        other.__dict__.update(
            fields,
            input_size=self.output_size,
            output_size=self.input_size,
            in_channels=self.out_channels,
            out_channels=self.in_channels,
            transposed=not self.transposed,
        )
        return other

    @property
    def convolution(self) -> ConvGeometry:
        """The geometry of the convolution itself, transposed or not."""
        return self.adjoint if self.transposed else self

    def alignment_shift(self, other: ConvGeometry) -> tuple[Fraction, ...]:
        """Return how far `other` lies from this geometry, an axis, in the convolution's inputs.

        The centre of the window of output ``o`` is input ``o*s + (ke - 1)/2 - low``; the shift
        is `other`'s centre less this one's. For transposed geometries it is in their outputs,
        where an entry goes.

        Raises
        ------
        ValueError
            Where ranks or strides differ: the shift then grows with the position.

        Examples
        --------
        TensorFlow's SAME on an even size against padding both sides alike:

        >>> same = ConvGeometry(8, 3, strides=2, padding="SAME")
        >>> ConvGeometry(8, 3, strides=2, padding=1).alignment_shift(same)
        (Fraction(1, 1),)
        """
        return inverse.alignment_shift(self, other)

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """The arithmetic of each spatial axis of `convolution` by itself."""
        return tuple(
            Axis(i, k, s, d, low, high)
            for i, k, s, d, (low, high) in zip(
                self.output_size if self.transposed else self.input_size,
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
    def effective_kernel_size(self) -> tuple[int, ...]:
        """The span of the dilated kernel, ``(k - 1)d + 1`` an axis."""
        return tuple(axis.effective_kernel for axis in self.axes)

    @cached_property
    def unread(self) -> tuple[int, ...]:
        """How many inputs of `convolution` at the end of each axis are read by no output."""
        return tuple(axis.unread for axis in self.axes)

    @cached_property
    def full_size(self) -> tuple[int, ...]:
        """The size of `convolution`'s transpose uncropped, ``max(0, s(o - 1) + ke)`` an axis."""
        return tuple(axis.full for axis in self.axes)

    @cached_property
    def cropped_size(self) -> tuple[int, ...]:
        """That less the paddings, ``max(0, s(o - 1) + ke - low - high)`` an axis."""
        return tuple(axis.cropped for axis in self.axes)

    @cached_property
    def crops(self) -> tuple[tuple[int, int], ...]:
        """What the transpose takes off its ``s(o - 1) + ke`` entries, ``(low, high)`` an axis.

        They are the paddings, less at the high end what the convolution leaves unread there;
        a negative one extends by zeros.
        """
        return tuple((axis.low, axis.span - axis.low - axis.size) for axis in self.axes)

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
        """``(*kernel_size, in_channels // groups, out_channels)`` of the convolution."""
        channels = self.in_channels, self.out_channels
        c_in, c_out = channels[::-1] if self.transposed else channels
        return (*self.kernel_size, c_in // self.groups, c_out)

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
        """Yield the kernel entries that reach the input, in C order, a `Tap` an axis."""
        yield from itertools.product(*(tuple(axis.taps()) for axis in self.axes))

    def __repr__(self) -> str:
        if self.transposed:
            return f"{self.adjoint!r}.adjoint"
        parts = [repr(self.input_size), repr(self.kernel_size)]
        plain = ConvGeometry(self.input_size, self.kernel_size)
        for field in dataclasses.fields(self)[2:-2]:  # less output_size and transposed
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
