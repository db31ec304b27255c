"""`conv_as_matmul`: the convolution as a sparse matrix, written straight into CSR arrays."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .arrays import kernel_geometry, numeric
from .axis import Axis, Run
from .geometry import INT32_MAX, ConvGeometry, Padding
from .memory import require_bytes
from .validate import PerAxis

if TYPE_CHECKING:
    import scipy.sparse

INT64_MAX = 2**63 - 1
#: Up to here one broadcast over short rows is quicker than several copies.
BROADCAST_ROWS = 64
#: A copy's source of this many entries stays in a core's own cache.
CACHED_ENTRIES = 2**14


def conv_as_matmul(
    kernel: np.ndarray,
    input_shape: PerAxis,
    *,
    strides: PerAxis = 1,
    padding: Padding = "VALID",
    dilations: PerAxis = 1,
    groups: int = 1,
    rows: slice | None = None,
    max_bytes: int | None = None,
) -> scipy.sparse.csr_array:
    """Return W, the matrix with ``W @ x.ravel() == conv(x, kernel, ...).ravel()``.

    ``W.T`` is the transposed convolution. Rows and columns run in C order over
    ``(*spatial, c)``.

    Parameters
    ----------
    kernel : ndarray
        ``(*k, c_in // groups, c_out)``, or 1 or 2 axes for one channel in and out.
    input_shape : tuple of int
        ``(*spatial, c_in)`` of one input, without a batch axis; the spatial size alone for a
        kernel without channels.
    strides, padding, dilations, groups
        As `ConvGeometry` takes them.
    rows : slice, optional
        Build only these rows of W; its step must be 1.
    max_bytes : int, optional
        Refuse to build a larger matrix. Default: the memory available.

    Returns
    -------
    scipy.sparse.csr_array
        Of shape ``(prod(output), prod(input))`` and the kernel's dtype (float16 and bfloat16,
        which SciPy's sparse products do not take, become float32). Column indices are sorted
        and unique; a stored zero is a zero of the kernel. The indices are int32 wherever they
        fit.

    Raises
    ------
    TypeError, ValueError
        For an argument that does not fit, naming it, and for a matrix larger than `max_bytes`,
        before anything is allocated.

    Notes
    -----
    Dumoulin & Visin (arXiv:1603.07285), section 4.1, "Convolution as a matrix operation".

    Examples
    --------
    The textbook's 3 x 3 kernel on a 4 x 4 input:

    >>> K = np.arange(1, 10).reshape(3, 3)
    >>> W = conv_as_matmul(K, (4, 4))
    >>> W.toarray()
    array([[1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0, 0, 0, 0, 0],
           [0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0, 0, 0, 0],
           [0, 0, 0, 0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0],
           [0, 0, 0, 0, 0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9]])
    >>> W @ np.arange(1, 17)
    array([348, 393, 528, 573])
    """
    kernel = numeric("kernel", kernel)
    kernel, geometry, _ = kernel_geometry(
        kernel,
        input_shape,
        name="input_shape",
        channels=True,
        groups=groups,
        strides=strides,
        padding=padding,
        dilations=dilations,
    )
    return matrix(kernel, geometry, rows=rows, max_bytes=max_bytes)


def matrix(
    kernel: np.ndarray,
    geometry: ConvGeometry,
    *,
    rows: slice | None = None,
    max_bytes: int | None = None,
) -> scipy.sparse.csr_array:
    """Build W from a kernel of ``geometry.kernel_shape``; see `conv_as_matmul`."""
    import scipy.sparse

    if kernel.dtype.name in ("float16", "bfloat16"):
        kernel = kernel.astype(np.float32)
    height, width = geometry.matrix_shape
    start, stop = _row_range(rows, height)
    blocks = list(_blocks(geometry, start, stop))
    nnz = sum(block.nnz for block in blocks)
    largest = max(nnz, stop - start, width)
    if largest > INT64_MAX:
        raise ValueError(f"W: expected sizes below 2**63, got {(stop - start, width)}, {nnz} entries")
    dtype, index = kernel.dtype, np.dtype(np.int32 if largest <= INT32_MAX else np.int64)
    require_bytes(
        f"W of shape {(stop - start, width)} with {nnz} entries",
        nnz * (dtype.itemsize + index.itemsize) + (stop - start + 1) * index.itemsize,
        max_bytes=max_bytes,
        way_out="use ConvOperator, which never builds W, or a slice of its rows (rows=)",
    )
    data, indices = np.empty(nnz, dtype), np.empty(nnz, index)
    indptr = np.zeros(stop - start + 1, index)
    kernel = np.ascontiguousarray(np.moveaxis(kernel, -1, 0))  # (c_out, *k, c_in // groups)
    entry = row = 0
    for block in blocks:
        block.fill(kernel, data[entry:], indices[entry:], indptr[1 + row :])
        entry, row = entry + block.nnz, row + block.rows
    np.cumsum(indptr, out=indptr)
    result = scipy.sparse.csr_array((data, indices, indptr), shape=(stop - start, width))
    result.has_canonical_format = True  # sorted, no duplicates: SciPy need not look
    return result


def _row_range(rows: slice | None, height: int) -> tuple[int, int]:
    if rows is None:
        return 0, height
    if not isinstance(rows, slice):
        raise TypeError(f"rows: expected a slice, got {rows!r}")
    start, stop, step = rows.indices(height)
    if step != 1:
        raise ValueError(f"rows: expected a slice of step 1, got {rows!r}")
    return start, max(start, stop)


def _blocks(geometry: ConvGeometry, start: int, stop: int) -> Iterator[_Block]:
    """Split rows ``start..stop`` into boxes of outputs, at most two an axis and one whole.

    The rows are the digits of a mixed-radix number ``(*o, c_out)``; a box fixes the leading
    digits, gives one a range, and leaves the rest whole.
    """
    radices = geometry.output_shape
    while start < stop:
        place = math.prod(radices)  # rows that one step of the digit before is worth
        leading: list[tuple[int, int]] = []
        rest = start
        for axis, radix in enumerate(radices):
            place //= radix
            digit, rest = divmod(rest, place)
            count = min(radix - digit, (stop - start) // place)
            if rest == 0 and count > 0:
                break
            leading.append((digit, digit + 1))
        trailing = [(0, radix) for radix in radices[axis + 1 :]]
        yield _Block(geometry, (*leading, (digit, digit + count), *trailing))
        start += count * place


class _Block:
    """The rows of a box of outputs: ``ranges`` gives ``(start, stop)`` an axis, channels last."""

    def __init__(self, geometry: ConvGeometry, ranges: tuple[tuple[int, int], ...]) -> None:
        self.geometry = geometry
        self.channels = slice(*ranges[-1])
        self.runs = [
            list(axis.runs(*limits)) for axis, limits in zip(geometry.axes, ranges, strict=False)
        ]
        self.rows = math.prod(stop - start for start, stop in ranges)
        # beyond[axis]: the entries that one output and one tap of the axes before `axis` have.
        group_width = geometry.in_channels // geometry.groups
        self.beyond = [(ranges[-1][1] - ranges[-1][0]) * group_width]
        for runs in reversed(self.runs):
            pairs = sum((run.stop - run.start) * (run.last - run.first) for run in runs)
            self.beyond.insert(0, pairs * self.beyond[0])
        self.nnz = self.beyond[0]

    def fill(
        self, kernel: np.ndarray, data: np.ndarray, indices: np.ndarray, counts: np.ndarray
    ) -> None:
        """Write the entries, and the length of each row, at the start of the three arrays.

        `kernel` comes as ``(c_out, *k, c_in // groups)``, the order of a row's entries.
        """
        group_width = kernel.shape[-1]
        *leading, last = (
            np.repeat(
                np.array([run.last - run.first for run in runs], counts.dtype),
                [run.stop - run.start for run in runs],
            )
            for runs in self.runs
        )
        lengths = functools.reduce(np.multiply.outer, leading, np.full((), group_width, last.dtype))
        shape = (lengths.size, last.size, self.channels.stop - self.channels.start)
        np.multiply(
            lengths.reshape(-1, 1, 1), last[:, None], out=counts[: self.rows].reshape(shape)
        )

        # The columns that the first output of each run reads, times what a step is worth.
        self.columns = [
            [_first_columns(axis, run, below, indices.dtype) for run in runs]
            for axis, runs, below in zip(
                self.geometry.axes, self.runs, self._column_steps(), strict=True
            )
        ]
        outputs_a_group = self.geometry.out_channels // self.geometry.groups
        group = np.arange(self.channels.start, self.channels.stop) // outputs_a_group
        channels = np.add.outer(group * group_width, np.arange(group_width))
        self.channel_columns = channels.astype(indices.dtype)  # (c_out, c_in // groups)
        self._fill((), np.zeros(1, indices.dtype), kernel[self.channels], data, indices)

    def _column_steps(self) -> list[int]:
        """Return the columns that a step of one input along each axis is worth."""
        shape = self.geometry.input_shape
        return [math.prod(shape[axis + 1 :]) for axis in range(self.geometry.rank)]

    def _fill(
        self,
        window: tuple[slice, ...],
        columns: np.ndarray,
        kernel: np.ndarray,
        data: np.ndarray,
        indices: np.ndarray,
    ) -> None:
        """Write the entries of one output along the first ``len(window)`` axes, all of the others.

        `window` has the taps that lie inside the input, `columns` the columns they read.
        Outputs of one run along the next axis have the same entries, their columns a constant
        step apart: write those of the first, then repeat them at the speed of a copy.
        """
        axis = len(window)
        if axis == self.geometry.rank:
            entries = kernel[(slice(None), *window)]  # (c_out, *taps, c_in // groups)
            data.reshape(entries.shape)[...] = entries
            shape = (len(kernel), columns.size, -1)
            np.add(columns[:, None], self.channel_columns[:, None], out=indices.reshape(shape))
            return
        step = self.geometry.strides[axis] * self._column_steps()[axis]
        position = 0
        for run, inputs in zip(self.runs[axis], self.columns[axis], strict=True):
            size = columns.size * inputs.size * self.beyond[axis + 1]
            if size == 0:
                continue
            count = run.stop - run.start
            block, first = slice(position, position + size * count), slice(position, position + size)
            self._fill(
                (*window, slice(run.first, run.last)),
                np.add.outer(columns, inputs).ravel(),
                kernel,
                data[first],
                indices[first],
            )
            if count > 1:
                _repeat(data[block].reshape(count, size), 0)
                _repeat(indices[block].reshape(count, size), step)
            position = block.stop


def _first_columns(axis: Axis, run: Run, below: int, dtype: np.dtype) -> np.ndarray:
    """Return where the taps of the first output of `run` read, `below` columns an input."""
    origin = run.start * axis.stride + run.first * axis.dilation - axis.low
    count = run.last - run.first
    step = axis.dilation if count > 1 else 0  # one tap takes no step, however long
    return (origin if count else 0) * below + step * below * np.arange(count, dtype=dtype)


def _repeat(rows: np.ndarray, step: int) -> None:
    """Fill ``rows[i] = rows[0] + i*step``: a few by broadcasting, then ever longer copies."""
    count, size = rows.shape
    done = min(count, BROADCAST_ROWS)
    longest = max(1, CACHED_ENTRIES // size)  # read from the cache, not from memory
    if step:
        np.add(rows[0], step * np.arange(1, done, dtype=rows.dtype)[:, None], out=rows[1:done])
    else:
        rows[1:done] = rows[0]
    while done < count:
        more = min(done, count - done, longest)
        if step:
            np.add(rows[:more], done * step, out=rows[done : done + more])
        else:
            rows[done : done + more] = rows[:more]
        done += more
