"""`ConvOperator`: the map itself, planned once: call it, transpose it, write it out."""

from __future__ import annotations

import dataclasses
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from . import backends
from .arrays import computed_in, kernel_geometry, numeric, result_type
from .backends import Options, Plan, Product
from .backends.protocol import PLAIN
from .call import Call
from .dlpack import any_library
from .geometry import ConvGeometry
from .matrix import matrix
from .memory import require_bytes
from .namespace import is_cupy, on_device_of
from .operator_core import Core
from .padding import Padding
from .spectral import spectral_norm
from .validate import PerAxis, integer

if TYPE_CHECKING:
    import scipy.sparse


class ConvOperator:
    """The linear map ``W`` of a convolution, its kernel copied and packed once.

    Parameters
    ----------
    kernel : ndarray
        ``(*k, c_in // groups, c_out)``, or 1 or 2 axes for one channel in and out.
    input_size : int or tuple of int
        The spatial size of an input, without channels.
    strides, padding, dilations, groups
        As `ConvGeometry` takes them.
    backend, algorithm, precision
        As in `conv`.
    dtype : dtype, optional
        float16 or bfloat16, for a float32 kernel: of results, to which operands are rounded, and
        the kernel too where the backend multiplies in it. The kernel's structure is found before,
        so one that is rows times columns, as for bilinear upsampling, is computed as such. The
        matrix and its norm are those of the kernel as it is.
    compact : bool
        Whether to take less memory on the CPU, and more time for it: a large kernel of Winograd's
        is transformed in every call in place of being kept transformed, and a kernel in read-only
        memory of NumPy's, laid out as the copy would be, is not copied: nobody may write to it by
        a view made before it was read-only. No bit of a result depends on it.

    Notes
    -----
    An operator does not change once made, and several threads may call it at once.

    It lives where its kernel does: NumPy's on the host, CuPy's on their device, and it takes
    arrays of that library. Those of torch, JAX and others that speak DLPack are seen as one or
    the other, by where they lie, and their results given back to them. A CuPy kernel is read
    once, to find its structure, and packed at the first call for each dtype, which waits for the
    device; no later call does.

    Examples
    --------
    >>> op = ConvOperator(np.arange(1, 10).reshape(3, 3), (4, 4))
    >>> op(np.arange(1, 17).reshape(4, 4))
    array([[348, 393],
           [528, 573]])
    >>> op.T(np.eye(2, dtype=int))
    array([[ 1,  2,  3,  0],
           [ 4,  6,  8,  3],
           [ 7, 12, 14,  6],
           [ 0,  7,  8,  9]])
    >>> op.T.T is op
    True
    """

    @any_library
    def __init__(
        self,
        kernel: np.ndarray,
        input_size: PerAxis,
        *,
        strides: PerAxis = 1,
        padding: Padding = "VALID",
        dilations: PerAxis = 1,
        groups: int = 1,
        algorithm: str | None = None,
        precision: str = "float32",
        compact: bool = False,
        dtype: Any = None,
        backend: str | None = None,
    ) -> None:
        checked, geometry, bare = kernel_geometry(
            numeric("kernel", kernel),
            input_size,
            name="input_size",
            channels=False,
            groups=groups,
            strides=strides,
            padding=padding,
            dilations=dilations,
        )
        options = Options(algorithm, precision, compact)
        half = None if dtype is None else _half(dtype)
        core = Core(checked, geometry, bare, backends.choose(backend, checked), options, half)
        try:  # refuse now what the backend cannot do, here or for the transpose
            core.prepared("forward", core.dtype)
        except ValueError:
            core.prepared("transpose", core.dtype)
        self._set(core, "forward")

    def _set(self, core: Core, product: Product) -> None:
        self._core, self._product = core, product
        self._partners: dict[str, Any] = {}  # by "T" and "H": a callable that gives the operator

    @property
    def geometry(self) -> ConvGeometry:
        """The geometry of the convolution, also for its transpose."""
        return self._core.geometry

    @property
    def kernel(self) -> np.ndarray:
        """The operator's own copy of the kernel, read-only; with `compact` perhaps the caller's.

        CuPy has no read-only arrays: of its kernels it is a copy once more.
        """
        kernel = self._core.kernel
        if is_cupy(kernel):
            with on_device_of(kernel):
                kernel = kernel.copy()
        return kernel[..., 0, 0] if self._core.bare else kernel

    @property
    def dtype(self) -> np.dtype:
        """The half type that was asked for, of all results; else the kernel's.

        Then a result has what it promotes to with the operand's.
        """
        return self._core.dtype

    @property
    def shape(self) -> tuple[int, int]:
        """The rows and columns of the matrix: the entries of one result and of one operand."""
        rows, columns = self.geometry.matrix_shape
        return (rows, columns) if self._product == "forward" else (columns, rows)

    @property
    def plan(self) -> Plan:
        """What runs for operands of the kernel's dtype; ``str(op.plan)`` says it in words.

        It says what was chosen and why, and the scratch that a call takes.
        """
        return self._core.prepared(self._product, self.dtype)[0]

    @property
    def T(self) -> ConvOperator:
        """The transpose, nothing conjugated; ``op.T.T is op``."""
        return self._partner("T")

    @property
    def H(self) -> ConvOperator:
        """The adjoint: the transpose of the conjugate, `T` itself for a real kernel."""
        return self._partner("H" if self.dtype.kind == "c" else "T")

    def _partner(self, name: str) -> ConvOperator:
        """Return the other half of a pair, T or H, making it where it is not alive.

        The one made later keeps the first alive, the first only knows of it: a cycle would
        hold the packed kernels until the garbage collector comes by.
        """
        core = self._core
        with core.lock:
            other = self._partners.get(name, lambda: None)()
            if other is None:
                if name == "H":
                    core = dataclasses.replace(core, kernel=core.kernel.conj())
                other = _operator(core, "transpose" if self._product == "forward" else "forward")
                other._partners[name] = lambda: self
                self._partners[name] = weakref.ref(other)
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy the kernel and the arguments; the copy plans and packs anew."""
        return _operator, (self._core, self._product)

    @any_library
    def __call__(
        self,
        x: np.ndarray,
        *,
        scale: np.ndarray | None = None,
        bias: np.ndarray | None = None,
        residual: np.ndarray | None = None,
        activation: str | None = None,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return ``activation(scale*(W x) + bias + residual)``; see `conv` for the arguments.

        Parameters
        ----------
        x : ndarray
            ``(n, *size, c)``, or ``size`` alone for a kernel without channels.
        """
        core = self._core
        x = numeric("x", x, core.kernel)
        call, plan, packed = core.ready(self._product, x)
        if core.half is not None:
            x = _rounded(x, core.half)
        epilogue = call.epilogue(x, scale, bias, residual, activation)
        if core.bare:
            x = x[None, ..., None]
        return call.run(plan, x, core.kernel, epilogue, out, packed=packed)

    @any_library
    def with_kernel(self, kernel: np.ndarray) -> ConvOperator:
        """Return the same operator with another kernel of the same shape, under the same plan."""
        core = self._core
        kernel = numeric("kernel", kernel, core.kernel)
        shape = core.kernel.shape[:-2] if core.bare else core.kernel.shape
        if kernel.shape != shape:
            raise ValueError(f"kernel: expected shape {shape}, got {kernel.shape}")
        return _operator(
            dataclasses.replace(core, kernel=kernel.reshape(core.kernel.shape)), self._product
        )

    def tune(self, batch: int = 1, *, seconds: float = 1.0) -> str:
        """Time how the work is best cut on this machine, and keep it for this and later processes.

        It changes how fast operators of this geometry, dtype and batch are, never a bit of a
        result. It is kept in the folder that the environment variable CONVARITH_CACHE names, by
        default in the user's cache. Plans that have nothing to choose from stay as they are.

        Parameters
        ----------
        batch : int
            The batch to tune for, at least 1.
        seconds : float
            About how long it may take.

        Returns
        -------
        str
            The plan in words.
        """
        batch = integer("batch", batch, minimum=1)
        if not isinstance(seconds, (int, float)) or not seconds > 0:
            raise ValueError(f"seconds: expected a number > 0, got {seconds!r}")
        plan, packed = self._core.prepared(self._product, self.dtype)
        tune = getattr(plan, "tune", None)  # the reference has no blocks
        if tune is not None:
            tune(packed, batch, seconds)
        return str(plan)

    def as_matmul(
        self, *, rows: slice | None = None, max_bytes: int | None = None
    ) -> scipy.sparse.csr_array:
        """Return the matrix as `conv_as_matmul` does, or a slice of its rows.

        The rows of a transposed operator are not sliced: they are columns of the other's. Its
        matrix is built from the other's and takes both their bytes for a while.
        """
        core, geometry = self._core, self.geometry
        if self._product == "forward":
            with on_device_of(core.kernel):
                return matrix(core.kernel, geometry, rows=rows, max_bytes=max_bytes)
        if rows is not None:
            raise ValueError(f"rows: expected None for a transposed operator, got {rows!r}")
        require_bytes(
            f"W^T of shape {self.shape} and the W it is made of",
            2 * geometry.matrix_nbytes(self._core.kernel.itemsize) + 8 * sum(self.shape),
            max_bytes=max_bytes,
            way_out="call the operator, which never builds W, or use op.T.as_matmul().T",
            beside=core.kernel,
        )
        with on_device_of(core.kernel):
            return matrix(core.kernel, geometry).T.tocsr()

    def as_linear_operator(self) -> scipy.sparse.linalg.LinearOperator:
        """Return SciPy's LinearOperator, on vectors that are the arrays' C-order ravel.

        For a CuPy kernel it is CuPy's, ``cupyx.scipy.sparse.linalg.LinearOperator``. Its
        ``rmatvec`` is the adjoint `H`. With it ``scipy.sparse.linalg.lsqr``, ``svds``,
        ``cg`` and the others run on the convolution without its matrix, as far as they take its
        dtype (float32 for the half types; ARPACK knows no integers and no longdouble).

        Examples
        --------
        >>> op = ConvOperator(np.array([1.0, 2.0]), 3)
        >>> A = op.as_linear_operator()
        >>> A.shape, A @ np.array([1.0, 1.0, 1.0])
        ((2, 3), array([3., 3.]))
        """
        if is_cupy(self._core.kernel):
            from cupyx.scipy.sparse.linalg import LinearOperator
        else:
            from scipy.sparse.linalg import LinearOperator

        adjoint = self.H  # held here, so that its kernel is packed once
        return LinearOperator(
            self.shape,
            matvec=self._matvec,
            rmatvec=adjoint._matvec,
            matmat=self._matmat,
            rmatmat=adjoint._matmat,
            dtype=computed_in(self.dtype),
        )

    def _matvec(self, vector: np.ndarray) -> np.ndarray:
        """Return ``W @ vector``."""
        with on_device_of(self._core.kernel):
            return self._matmat(vector.reshape(-1, 1)).ravel()

    def _matmat(self, columns: np.ndarray) -> np.ndarray:
        """Return ``W @ columns``, the columns as one batch."""
        core, geometry, product = self._core, self.geometry, self._product
        shape = geometry.input_shape if product == "forward" else geometry.output_shape
        with on_device_of(core.kernel):
            batch = numeric("x", columns, core.kernel).T.reshape(columns.shape[1], *shape)
            dtype = result_type(x=batch, kernel=core.kernel)
            call = Call(product, geometry, dtype, (len(batch),), bare=False)
            plan, packed = core.prepared(product, dtype)
            result = call.run(plan, batch, core.kernel, PLAIN, None, packed=packed)
            return result.reshape(len(batch), self.shape[0]).T

    def norm(self, *, rtol: float = 1e-6) -> float:
        """Return the spectral norm, the largest singular value, of the map as it is.

        Strides, padding and borders count, unlike in the bound by the kernel's Fourier
        transform, which is the norm of a circular convolution.

        Parameters
        ----------
        rtol : float
            The relative error allowed, between 1e-12 and 0.1. The iteration takes some hundred
            products for 1e-3 and some thousand for 1e-6 where the largest singular values lie
            close together, as those of a blur of a large picture do.
        """
        with on_device_of(self._core.kernel):
            return spectral_norm(self, rtol=rtol)

    def __repr__(self) -> str:
        suffix = "" if self._product == "forward" else ".T"
        return f"ConvOperator({self.dtype}, {self.geometry!r}){suffix}"


def _operator(core: Core, product: Product) -> ConvOperator:
    operator = object.__new__(ConvOperator)
    operator._set(core, product)
    return operator


def _half(dtype: Any) -> np.dtype:
    """Return a half type that results are asked for in."""
    try:
        half = np.dtype(dtype).newbyteorder("=")
    except TypeError:
        raise TypeError(f"dtype: expected float16 or bfloat16, got {dtype!r}") from None
    if half.name not in ("float16", "bfloat16"):
        raise TypeError(f"dtype: expected float16 or bfloat16, got {half}")
    return half


def _rounded(x: Any, half: np.dtype) -> Any:
    if x.dtype.kind == "c":
        raise TypeError(f"x: expected real numbers for results in {half}, got {x.dtype}")
    with np.errstate(over="ignore"):  # infinite is what is too large
        return x.astype(half, copy=False)
