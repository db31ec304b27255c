"""`conv_as_matmul`: the convolution as a sparse matrix, written straight into CSR arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .arrays import computed_in, kernel_geometry, numeric
from .axis import Axis, Run
from .dlpack import any_library
from .geometry import INT32_MAX, ConvGeometry
from .memory import require_bytes
from .namespace import is_cupy, namespace
from .padding import Padding
from .validate import PerAxis

if TYPE_CHECKING:
    import scipy.sparse

INT64_MAX = 2**63 - 1
#: A row of this many entries is copied at the speed of memory, and stays in the nearest cache.
LONG_ENTRIES = 2**12


@any_library
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
        fit. For a CuPy kernel it is ``cupyx.scipy.sparse.csr_array``, built on the device, and
        the kernel is to be of floats: CuPy has no sparse integers.

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
    xp, sparse = namespace(kernel), _sparse(kernel)
    height, width = geometry.matrix_shape
    start, stop = _row_range(rows, height)
    # In closed form where it is all of W: an absurd one is to be refused at once.
    blocks = [] if rows is None else list(_blocks(geometry, start, stop))
    nnz = geometry.nnz if rows is None else sum(block.nnz for block in blocks)
    # SciPy's products take no half types, and work in the machine's byte order.
    dtype = computed_in(kernel.dtype).newbyteorder("=")
    largest = max(nnz, stop - start, width)
    if largest > INT64_MAX:
        raise ValueError(
            f"input_shape: expected fewer than 2**63 rows, columns and entries of W, "
            f"got {(stop - start, width)} and {nnz}: use ConvOperator, which never builds W"
        )
    index = np.dtype(np.int32 if largest <= INT32_MAX else np.int64)
    require_bytes(
        f"W of shape {(stop - start, width)} with {nnz} entries",
        nnz * (dtype.itemsize + index.itemsize) + (stop - start + 1) * index.itemsize,
        max_bytes=max_bytes,
        way_out="use ConvOperator, which never builds W, or a slice of its rows (rows=)",
        beside=kernel,
    )
    indptr = xp.zeros(stop - start + 1, index)
    arrays = _Arrays(
        xp,
        xp.ascontiguousarray(xp.moveaxis(kernel, -1, 0), dtype),
        xp.empty(nnz, dtype),
        xp.empty(nnz, index),
        indptr[1:],
    )
    entry = row = 0
    for block in blocks or _blocks(geometry, start, stop):
        _Writer(block, arrays).write(entry, row)
        entry, row = entry + block.nnz, row + block.rows
    result = sparse.csr_array((arrays.data, arrays.indices, indptr), shape=(stop - start, width))
    result.has_canonical_format = True  # sorted, no duplicates: nobody need look
    return result


def _sparse(kernel: np.ndarray) -> Any:
    """Return the module of sparse arrays on the kernel's library."""
    if not is_cupy(kernel):
        import scipy.sparse

        return scipy.sparse
    if kernel.dtype.kind in "iu":
        raise TypeError(
            f"kernel: expected floats for a matrix of CuPy's, which has no sparse integers, "
            f"got {kernel.dtype}: use kernel.astype('float64')"
        )
    import cupyx.scipy.sparse

    return cupyx.scipy.sparse


def _row_range(rows: slice | None, height: int) -> tuple[int, int]:
    if rows is None:
        return 0, height
    if not isinstance(rows, slice):
        raise TypeError(f"rows: expected a slice, got {rows!r}")
    try:
        start, stop, step = rows.indices(height)
    except (TypeError, ValueError) as error:
        raise type(error)(f"rows: expected a slice of integers, got {rows!r}: {error}") from None
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
        for radix in radices:
            place //= radix
            digit, rest = divmod(rest, place)
            count = min(radix - digit, (stop - start) // place)
            if rest == 0 and count > 0:
                break
            leading.append((digit, digit + 1))
        trailing = [(0, radix) for radix in radices[len(leading) + 1 :]]
        yield _Block(geometry, (*leading, (digit, digit + count), *trailing))
        start += count * place


class _Arrays(NamedTuple):
    """What W is read from and written to, all of the library whose module is `xp`."""

    xp: Any
    kernel: np.ndarray  # (c_out, *k, c_in // groups): in the order of a row's entries
    data: np.ndarray
    indices: np.ndarray
    ends: np.ndarray  # where each row ends among the entries


class _Block:
    """The rows of a box of outputs: ``ranges`` gives ``(start, stop)`` an axis, channels last."""

    def __init__(self, geometry: ConvGeometry, ranges: tuple[tuple[int, int], ...]) -> None:
        self.geometry = geometry
        self.channels = slice(*ranges[-1])
        self.runs = [
            list(axis.runs(*limits)) for axis, limits in zip(geometry.axes, ranges, strict=False)
        ]
        # What one output of the axes before `axis` has: rows, and entries for each of its taps.
        width = ranges[-1][1] - ranges[-1][0]
        self.rows_of, self.entries_of = [width], [width * (geometry.in_channels // geometry.groups)]
        for runs, (start, stop) in zip(reversed(self.runs), reversed(ranges[:-1]), strict=True):
            pairs = sum((run.stop - run.start) * (run.last - run.first) for run in runs)
            self.rows_of.insert(0, (stop - start) * self.rows_of[0])
            self.entries_of.insert(0, pairs * self.entries_of[0])
        self.rows, self.nnz = self.rows_of[0], self.entries_of[0]


class _Writer:
    """Writes the rows of one block.

    Every column written is one of W's, and every step a difference of two of them, so nothing
    leaves the range of the index dtype on the way.
    """

    def __init__(self, block: _Block, arrays: _Arrays) -> None:
        self.block, self.arrays, self.geometry = block, arrays, block.geometry
        geometry, dtype = block.geometry, arrays.indices.dtype
        shape = geometry.input_shape
        # Along each axis, the columns that one input is worth, ...
        self.below = [math.prod(shape[axis + 1 :]) for axis in range(geometry.rank)]
        # ... and those that the first output of each run reads.
        self.columns = [
            [_columns_read(arrays.xp, axis, run, below, dtype) for run in runs]
            for axis, runs, below in zip(geometry.axes, block.runs, self.below, strict=True)
        ]
        group_width = geometry.in_channels // geometry.groups
        outputs_a_group = geometry.out_channels // geometry.groups
        xp = arrays.xp
        group = xp.arange(block.channels.start, block.channels.stop) // outputs_a_group
        channels = (group * group_width)[:, None] + xp.arange(group_width)
        self.channel_columns = channels[:, None].astype(dtype)  # (c_out, 1, c_in // groups)

    def write(self, entry: int, row: int) -> None:
        """Write the entries from `entry` on and the rows' ends from `row` on."""
        self._write((), self.arrays.xp.zeros(1, self.arrays.indices.dtype), entry, row)

    def _write(
        self,
        window: tuple[slice, ...],
        columns: np.ndarray,
        entry: int,
        row: int,
    ) -> None:
        """Write one output along the first ``len(window)`` axes, and all along the others.

        `window` has the taps that lie inside the input, `columns` the columns they read.
        Outputs of one run along the next axis have the same entries, their columns a constant
        step apart: write those of the first, then repeat them at the speed of a copy.
        """
        xp, kernel, data, indices, ends = self.arrays
        axis = len(window)
        if axis == self.geometry.rank:
            weights = kernel[(self.block.channels, *window)]
            every = slice(entry, entry + weights.size)
            data[every].reshape(weights.shape)[...] = weights
            shape = (len(weights), columns.size, -1)
            xp.add(columns[:, None], self.channel_columns, out=indices[every].reshape(shape))
            length = weights.size // len(weights)
            ends[row : row + len(weights)] = entry + length * xp.arange(1, len(weights) + 1)
            return
        step = self.geometry.strides[axis] * self.below[axis]
        rows = self.block.rows_of[axis + 1]
        for run, inputs in zip(self.block.runs[axis], self.columns[axis], strict=True):
            count = run.stop - run.start
            size = columns.size * inputs.size * self.block.entries_of[axis + 1]
            if size == 0:
                ends[row : row + rows * count] = entry
            else:
                reads = (*window, slice(run.first, run.last))
                self._write(reads, (columns[:, None] + inputs).ravel(), entry, row)
                if count > 1:
                    every = slice(entry, entry + size * count)
                    _repeat(xp, data[every].reshape(count, size), 0)
                    _repeat(xp, indices[every].reshape(count, size), step)
                    _repeat(xp, ends[row : row + rows * count].reshape(count, rows), size)
            entry, row = entry + size * count, row + rows * count


def _columns_read(xp: Any, axis: Axis, run: Run, below: int, dtype: np.dtype) -> np.ndarray:
    """Return where the taps of the first output of `run` read, `below` columns an input."""
    count = run.last - run.first
    if count == 0:
        return xp.empty(0, dtype)
    origin = run.start * axis.stride + run.first * axis.dilation - axis.low
    step = axis.dilation if count > 1 else 0  # one tap takes no step, however long
    return origin * below + step * below * xp.arange(count, dtype=dtype)


def _repeat(xp: Any, rows: np.ndarray, step: int) -> None:
    """Fill ``rows[i] = rows[0] + i*step``: short rows joined to long ones, then those."""
    count, size = rows.shape
    group = min(count, max(1, LONG_ENTRIES // size))
    whole = count // group
    long_rows = rows[: whole * group].reshape(whole, group * size)
    _broadcast(xp, rows[1:group], rows[0], step)
    _broadcast(xp, long_rows[1:], long_rows[0], step * group)
    rest = rows[whole * group :]
    if len(rest):
        _broadcast(xp, rest.reshape(1, -1), rows[: len(rest)].ravel(), step * group * whole)


def _broadcast(xp: Any, rows: np.ndarray, source: np.ndarray, step: int) -> None:
    """Fill ``rows[i] = source + (i + 1)*step``."""
    if len(rows) == 0:
        return
    if step == 0:  # values, not columns: copied, since adding 0 would lose the sign of -0.0
        rows[...] = source
    else:
        xp.add(source, (step * xp.arange(1, len(rows) + 1, dtype=rows.dtype))[:, None], out=rows)
