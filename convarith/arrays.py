"""Checks of arrays: kinds, dtypes, ranks and channels, before anything is computed."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .geometry import ConvGeometry
from .namespace import check_together, is_cupy
from .validate import integer, is_sequence

#: NumPy's 64, less a batch axis and one that splits channels into groups.
MOST_AXES = 62


def numeric(name: str, value: Any, first: Any = None) -> np.ndarray:
    """Return `value` as an array of a dtype that convolution is defined for.

    NumPy's and CuPy's arrays pass as they are, numbers and nested lists become NumPy's; any other
    object is refused, since converting it might copy it from elsewhere behind the caller's back.
    So is an array of another library, or on another device, than the call's `first` one.
    """
    if type(value) is np.ndarray and _is_numpys(value.dtype):
        if first is not None:
            check_together(name, value, first)
        return value
    array = _array(name, value)
    if not _is_known(array.dtype):
        raise TypeError(
            f"{name}: expected integers, floats or complex numbers, got dtype {array.dtype}"
        )
    if first is not None:
        check_together(name, array, first)
    return array


def _array(name: str, value: Any) -> np.ndarray:
    """Return `value` as a plain NumPy array, or as the CuPy array that it is."""
    if is_cupy(value):
        check_aligned(name, value)
        return value
    if isinstance(value, (int, float, complex, list, tuple)):
        try:
            value = np.asarray(value)
        except ValueError as error:
            raise ValueError(f"{name}: expected an array, got a ragged list ({error})") from None
    if isinstance(value, np.generic):
        value = np.asarray(value)
    if not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray):
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        hint = ": give all operands as one library's" if hasattr(type(value), "__dlpack__") else ""
        raise TypeError(f"{name}: expected a NumPy or CuPy array, got {kind}{hint}")
    return np.asarray(value)


def check_aligned(name: str, array: Any) -> None:
    """Refuse a CuPy array with elements between their natural addresses: a GPU faults there."""
    if array.flags.c_contiguous and array.data.ptr % 16 == 0:
        return  # at once: a small product takes a few microseconds
    alignment = array.dtype.alignment
    if array.size and any(place % alignment for place in (array.data.ptr, *array.strides)):
        raise ValueError(
            f"{name}: expected elements at multiples of {alignment} bytes, got a {array.dtype} "
            f"array at address {array.data.ptr} with strides {array.strides}"
        )


def _is_numpys(dtype: np.dtype) -> bool:
    """Whether these are NumPy's own numbers: other packages' float8 and int4 have kinds f and i."""
    return dtype.num < 256 and dtype.kind in "iufc"


@functools.cache  # a dtype's name takes microseconds
def _is_known(dtype: np.dtype) -> bool:
    return _is_numpys(dtype) or dtype.name == "bfloat16"


def result_type(**arrays: np.ndarray) -> np.dtype:
    """Return the dtype that the named arrays promote to, as NumPy does it."""
    try:
        return np.result_type(*(array.dtype for array in arrays.values()))
    except TypeError:
        dtypes = ", ".join(f"{name} {array.dtype}" for name, array in arrays.items())
        raise TypeError(
            f"{', '.join(arrays)}: expected dtypes with a common one, got {dtypes}"
        ) from None


@functools.cache  # a dtype's name takes microseconds
def computed_in(dtype: np.dtype) -> np.dtype:
    """Return what sums of `dtype` are computed in: float32 for the half types, else itself."""
    return np.dtype(np.float32) if dtype.name in ("float16", "bfloat16") else dtype


def is_bare(name: str, array: np.ndarray, kernel: np.ndarray) -> bool:
    """Whether an array and a kernel of as many axes stand for one channel without a batch."""
    check_kernel_rank(kernel)
    if array.ndim != kernel.ndim:
        layout = (
            f"(n, *spatial, c) of {kernel.ndim} axes for a kernel (*k, c_in // groups, c_out)"
            if kernel.ndim > 2
            else f"{kernel.ndim} axes, as many as the bare kernel has"
        )
        raise ValueError(f"{name}: expected {layout}, got shape {array.shape}")
    return kernel.ndim <= 2


def check_kernel_rank(kernel: np.ndarray) -> None:
    """Refuse a kernel of no axes, and one of more than NumPy leaves room for."""
    if not 1 <= kernel.ndim <= MOST_AXES:
        raise ValueError(f"kernel: expected 1 to {MOST_AXES} axes, got {kernel.ndim}")


def checked_kernel(kernel: np.ndarray, *, bare: bool, groups: Any) -> tuple[np.ndarray, int, int]:
    """Return the kernel as ``(*k, c_in // groups, c_out)``, with its ``c_in`` and ``c_out``."""
    if 0 in kernel.shape:
        raise ValueError(f"kernel: expected every axis >= 1, got shape {kernel.shape}")
    groups = integer("groups", groups, minimum=1)
    if bare:
        if groups != 1:
            raise ValueError(f"groups: expected 1 for a kernel without channels, got {groups}")
        return kernel[..., None, None], 1, 1
    in_channels, out_channels = kernel.shape[-2] * groups, kernel.shape[-1]
    if out_channels % groups:
        raise ValueError(f"groups: expected a divisor of c_out = {out_channels}, got {groups}")
    return kernel, in_channels, out_channels


def check_channels(name: str, array: np.ndarray, channels: int) -> None:
    """Refuse an array ``(n, *spatial, c)`` whose last axis is not `channels` long."""
    if array.shape[-1] != channels:
        raise ValueError(
            f"{name}: expected {channels} channels on axis {array.ndim - 1}, "
            f"got {array.shape[-1]} (shape {array.shape})"
        )


def kernel_geometry(
    kernel: np.ndarray, input_shape: Any, *, name: str, channels: bool, groups: Any, **arguments
) -> tuple[np.ndarray, ConvGeometry, bool]:
    """Return kernel, geometry and bareness from a kernel and the shape of one input.

    With `channels` the shape of an input with channels ends in their number; without, it is
    the spatial size alone, and one integer stands for every axis.
    """
    check_kernel_rank(kernel)
    if not is_sequence(input_shape):
        spatial = kernel.ndim if kernel.ndim <= 2 else kernel.ndim - 2
        input_shape = (input_shape,) * (1 if channels else spatial)
    shape = tuple(integer(f"{name}[{i}]", v, minimum=0) for i, v in enumerate(input_shape))
    spatial_axes = kernel.ndim - 2
    bare = kernel.ndim <= 2 and kernel.ndim == len(shape)
    if not bare and (spatial_axes < 1 or len(shape) != spatial_axes + channels):
        raise ValueError(
            f"{name}: expected one entry a spatial axis{' and the channels' if channels else ''} "
            f"for a kernel of shape {kernel.shape}, got {shape}"
        )
    kernel, in_channels, out_channels = checked_kernel(kernel, bare=bare, groups=groups)
    if not bare and channels and shape[-1] != in_channels:
        raise ValueError(
            f"{name}: expected {in_channels} channels (kernel axis {spatial_axes} x groups) "
            f"at the end, got {shape}"
        )
    geometry = ConvGeometry(
        shape if bare else shape[:spatial_axes],
        kernel.shape[:-2],
        groups=groups,
        in_channels=in_channels,
        out_channels=out_channels,
        **arguments,
    )
    return kernel, geometry, bare
