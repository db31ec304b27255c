"""The group ``matrix``: building W, beside the other ways to build it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import measure
import numpy as np
import scipy.sparse
from cases import Case

import convarith

Candidates = dict[str, Callable[[], Any] | str]

#: The candidate that is not a peer but the floor: what moving the bytes alone takes.
FLOOR = "fill"
OURS = "convarith"
#: Where the identity and its convolution take more than this, the identity is not convolved.
IDENTITY_BYTES = 2**30
PEERS = ("COO to CSR", "identity")


def measured(case: Case, wanted: list[str] | None, options: Any) -> dict[str, Any]:
    """Time one case's candidates and check that they make the same thing."""
    always = (OURS, FLOOR)
    chosen = {
        name: run
        for name, run in candidates(case).items()
        if name in always or wanted is None or name in wanted
    }
    runnable = {name: run for name, run in chosen.items() if not isinstance(run, str)}
    timings: dict[str, dict[str, Any]] = dict(measure.interleaved(runnable, options.seconds))
    expected = runnable[OURS]()
    for name, run in runnable.items():
        timings[name]["peak_bytes"] = measure.peak_bytes(run)
        if name != FLOOR:
            timings[name]["difference"] = difference(run(), expected)
    for name, reason in chosen.items():
        if isinstance(reason, str):
            timings[name] = {"skipped": reason}
    return {
        "group": case.group,
        "name": case.name,
        "geometry": repr(case.geometry),
        "dtype": case.dtype,
        "entries": case.geometry.nnz,
        "bytes": case.geometry.matrix_nbytes(np.dtype(case.dtype).itemsize),
        "candidates": {name: timings[name] for name in chosen},
    }


def difference(actual: scipy.sparse.csr_array, expected: scipy.sparse.csr_array) -> float:
    """Return the largest difference between two matrices, relative to the largest entry."""
    return float(abs(actual - expected).max() / abs(expected).max())


def candidates(case: Case) -> Candidates:
    """Return the ways to build W, and the floor: filling three arrays of its size.

    A string is the reason why one is not run.
    """
    geometry, dtype = case.geometry, np.dtype(case.dtype)
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal(geometry.kernel_shape).astype(dtype)
    rows, columns = geometry.matrix_shape
    index = np.int32 if geometry.index_bits == 32 else np.int64

    def fill() -> list[np.ndarray]:
        return [
            np.full(geometry.nnz, 1, dtype),
            np.full(geometry.nnz, 1, index),
            np.full(rows + 1, 1, index),
        ]

    def ours() -> scipy.sparse.csr_array:
        return convarith.conv_as_matmul(
            kernel, geometry.input_shape, strides=geometry.strides, padding=geometry.padding
        )

    identity_bytes = columns * (columns + rows) * dtype.itemsize
    return {
        OURS: ours,
        FLOOR: fill,
        "COO to CSR": lambda: coo_to_csr(kernel, geometry),
        "identity": (lambda: convolved_identity(kernel, geometry))
        if identity_bytes <= IDENTITY_BYTES
        else f"needs {identity_bytes / 1e9:.1f} GB",
    }


def coo_to_csr(kernel: np.ndarray, geometry: convarith.ConvGeometry) -> scipy.sparse.csr_array:
    """Return W from index triples, all of them at once, as one writes it in NumPy."""
    grid = np.indices((*geometry.output_shape, *geometry.kernel_shape[:-1]), sparse=True)
    shape = np.broadcast_shapes(*(part.shape for part in grid))  # (*o, c_out, *k, c_in)
    outputs, taps, channels = grid[: geometry.rank], grid[geometry.rank + 1 : -1], grid[-1]
    inside, column = np.True_, 0
    for axis, o, k in zip(geometry.axes, outputs, taps, strict=True):
        i = o * axis.stride + k * axis.dilation - axis.low
        inside = inside & (i >= 0) & (i < axis.size)
        column = column * axis.size + i
    column = np.broadcast_to(column * geometry.in_channels + channels, shape)
    inside = np.broadcast_to(inside, shape)
    row = np.broadcast_to(
        np.arange(geometry.matrix_shape[0]).reshape(
            *geometry.output_shape, *(1,) * (geometry.rank + 1)
        ),
        shape,
    )
    value = np.broadcast_to(np.moveaxis(kernel, -1, 0), shape)
    triples = (value[inside], (row[inside], column[inside]))
    return scipy.sparse.coo_array(triples, shape=geometry.matrix_shape).tocsr()


def convolved_identity(
    kernel: np.ndarray, geometry: convarith.ConvGeometry
) -> scipy.sparse.csr_array:
    """Return W by convolving every unit vector."""
    units = np.eye(geometry.matrix_shape[1], dtype=kernel.dtype)
    columns = convarith.conv(
        units.reshape(-1, *geometry.input_shape),
        kernel,
        strides=geometry.strides,
        padding=geometry.padding,
    )
    return scipy.sparse.csr_array(columns.reshape(len(units), -1).T)
