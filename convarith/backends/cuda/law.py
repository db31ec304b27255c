"""A geometry as the kernels take it: structs by value, the same as those of ``walk.cuh``."""

from __future__ import annotations

import math

import numpy as np

from ...axis import Axis
from ...geometry import ConvGeometry

#: The name that the kernels have for a dtype.
ELEMENTS = {
    **{f"float{bits}": f"f{bits}" for bits in (16, 32, 64)},
    **{f"int{bits}": f"i{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"u{bits}" for bits in (8, 16, 32, 64)},
    "bfloat16": "bf16",
}
#: Bytes that one thread copies at a time.
CHUNK_BYTES = 16
#: Coordinates stay below this, so that sums of a few of them are 32-bit integers.
MOST_COORDINATE = 2**29
#: Pixels, blocks and the like stay below this, ...
MOST = 2**31
#: ... and blocks along the second and third axis of a grid below this.
MOST_GRID = 2**16 - 1

_INT = np.int32
_AXIS_FIELDS = (
    *("source", "result", "taps", "stride", "dilation", "low"),
    *("phases", "common", "inverse"),
)
_MAP_FIELDS = (
    *("transposed", "groups", "source_channels"),
    *("result_channels", "padded_channels", "chunks"),
)
_GRADIENT_FIELDS = ("groups", "channels", "filters", "padded_channels", "padded_filters")


def _structs(index: type) -> tuple[np.dtype, np.dtype, np.dtype]:
    """Return Axis, Map and Gradient for coordinates of a type."""
    axis = np.dtype([(name, index) for name in _AXIS_FIELDS], align=True)
    axes = ("axes", axis, 3)
    numbers = [(name, _INT) for name in _MAP_FIELDS]
    of_map = np.dtype([axes, *numbers, ("row", np.int64)], align=True)
    of_gradient = np.dtype([axes, *((name, _INT) for name in _GRADIENT_FIELDS)], align=True)
    return axis, of_map, of_gradient


_STRUCTS = {False: _structs(np.int32), True: _structs(np.int64)}


class Law:
    """One product of a geometry, its axes three and its channels those of a group.

    Attributes
    ----------
    source, result : tuple of int
        Sizes of what is read and what is made: input and output, or for the transpose output
        and input.
    channels, filters : int
        Of a group: of what is read and what is made (of x and g for the kernel gradient).
    phases : int
        Kinds of results that have taps in common.
    """

    def __init__(self, geometry: ConvGeometry, *, transposed: bool) -> None:
        self.geometry, self.transposed = geometry, transposed
        self.groups = geometry.groups
        ends = (geometry.in_channels // self.groups, geometry.out_channels // self.groups)
        self.channels, self.filters = ends[::-1] if transposed else ends
        self.axes = [_axis(axis, transposed) for axis in geometry.axes]
        while len(self.axes) < 3:
            self.axes.insert(0, _axis(Axis(1, 1, 1, 1, 0, 0), transposed))
        self.source, self.result = (
            tuple(axis[name] for axis in self.axes) for name in ("source", "result")
        )
        self.taps = math.prod(geometry.kernel_size)
        self.phases = math.prod(axis["phases"] for axis in self.axes)
        #: Of the kernels' loops: the leading axis is 1 long where it can be.
        self.rank = 3 if geometry.rank == 3 else 2
        #: Whether coordinates need 64 bits.
        self.wide = not within_reach(geometry)

    def reads_padding(self) -> bool:
        """Whether a tap may lie outside of what is read."""
        if self.transposed:
            return True
        return any(
            axis.low > 0
            or (axis.output - 1) * axis.stride + axis.effective_kernel - axis.low > axis.size
            for axis in self.geometry.axes
        )

    def phase_counts(self) -> list[int]:
        """Return the results along each axis of the phase that has most."""
        return [-(-axis["result"] // axis["phases"]) for axis in self.axes]

    def phase_taps(self) -> list[int]:
        """Return the taps along each axis of the phase that has most."""
        if not self.transposed:
            return [axis["taps"] for axis in self.axes]
        return [-(-axis["taps"] // (axis["stride"] // axis["common"])) for axis in self.axes]

    def most_taps(self) -> int:
        """Return the taps of a result that has the most of them."""
        return math.prod(self.phase_taps())

    def map_struct(self, padded: int, chunk: int) -> np.ndarray:
        """Return the struct `Map` for `padded` channels of a group as they lie in memory."""
        values = (
            *(self.transposed, self.groups, self.channels, self.filters),
            *(padded, padded // chunk, self.taps * padded),
        )
        return self._struct(1, (*_MAP_FIELDS, "row"), values)

    def gradient_struct(self, padded_channels: int, padded_filters: int) -> np.ndarray:
        """Return the struct `Gradient`."""
        values = (self.groups, self.channels, self.filters, padded_channels, padded_filters)
        return self._struct(2, _GRADIENT_FIELDS, values)

    def _struct(self, which: int, names: tuple[str, ...], values: tuple[int, ...]) -> np.ndarray:
        structs = _STRUCTS[self.wide]
        struct = np.zeros(1, structs[which])
        axes = [tuple(axis[name] for name in _AXIS_FIELDS) for axis in self.axes]
        struct["axes"] = np.array(axes, structs[0])
        for name, value in zip(names, values, strict=True):
            struct[name] = value
        return struct


def _axis(axis: Axis, transposed: bool) -> dict[str, int]:
    common = math.gcd(axis.stride, axis.dilation)
    every = axis.stride // common
    source, result = (axis.output, axis.size) if transposed else (axis.size, axis.output)
    return {
        "source": source,
        "result": result,
        "taps": axis.kernel,
        "stride": axis.stride,
        "dilation": axis.dilation,
        "low": axis.low,
        "phases": min(axis.stride, result) if transposed else 1,
        "common": common,
        "inverse": pow(axis.dilation // common, -1, every) if every > 1 else 0,
    }


def within_reach(geometry: ConvGeometry) -> bool:
    """Whether 32-bit coordinates reach all of a geometry."""
    return all(
        abs(number) < MOST_COORDINATE
        for axis in geometry.axes
        for number in (*axis, axis.output, axis.effective_kernel)
    )
