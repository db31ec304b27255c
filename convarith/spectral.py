"""The spectral norm of a convolution as it is: strided, zero-padded, not circular."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .memory import require_bytes
from .namespace import namespace, on_host

if TYPE_CHECKING:
    from .operator import ConvOperator

#: A map with at most this many rows or columns has its Gram matrix written out and decomposed.
DENSE_SIDE = 64
#: Lanczos vectors that the iteration keeps.
LANCZOS_VECTORS = 64


def spectral_norm(operator: ConvOperator, *, rtol: float) -> float:
    """Return the largest singular value of `operator`, to the relative error `rtol`.

    The square root of the largest eigenvalue of ``W W^H`` or ``W^H W``, the smaller, in float64
    and on a kernel scaled to 1: LAPACK's where it is small, else by ARPACK's Lanczos iteration
    from a fixed start, which ends when the residual is below ``rtol`` of the eigenvalue. That
    iteration is SciPy's also for a CuPy kernel: the products run where the kernel lies, and only
    the vectors they take and give come to the host, since CuPy's own iteration ends by an
    absolute residual, and says nothing where it does not converge.
    """
    if not isinstance(rtol, (int, float)) or not 1e-12 <= rtol <= 0.1:
        raise ValueError(f"rtol: expected a number from 1e-12 to 0.1, got {rtol!r}")
    rows, columns = operator.shape
    is_complex = operator.dtype.kind == "c"
    wide = np.dtype(np.complex128 if is_complex else np.float64)
    kernel = operator.kernel.astype(np.result_type(operator.dtype, wide))  # longdouble stays
    xp = namespace(kernel)
    if not xp.isfinite(kernel).all():
        raise ValueError("kernel: expected finite values for a norm, got an infinity or NaN")
    scale = max(on_host(xp.abs(part).max())[()] for part in (kernel.real, kernel.imag))
    if operator.geometry.nnz == 0 or scale == 0:
        return 0.0
    side = min(rows, columns)
    require_bytes(
        "the vectors of the norm's iteration",
        (rows + columns + LANCZOS_VECTORS * side) * wide.itemsize,
        way_out="bound it by the norm of a smaller input_size, which is close",
        beside=kernel,
    )
    scaled = operator.with_kernel((kernel / scale).astype(wide))
    tall = scaled if columns <= rows else scaled.H
    first, second = tall.as_linear_operator(), tall.H.as_linear_operator()
    if side <= DENSE_SIDE:
        gram = second @ (first @ xp.eye(side, dtype=wide))
        largest = np.linalg.eigvalsh(on_host(gram))[-1]
    else:
        from scipy.sparse.linalg import LinearOperator, eigsh

        def product(vector: np.ndarray) -> np.ndarray:
            return on_host(second @ (first @ xp.asarray(vector)))

        gram = LinearOperator((side, side), matvec=product, dtype=wide)
        start = np.random.default_rng(0).standard_normal(side).astype(wide)
        (largest,) = eigsh(
            gram, k=1, v0=start, tol=rtol, ncv=LANCZOS_VECTORS, return_eigenvectors=False
        )
    return float(scale) * math.sqrt(max(0.0, float(largest)))
