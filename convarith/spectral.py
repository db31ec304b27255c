"""The spectral norm of a convolution as it is: strided, zero-padded, not circular."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .operator import ConvOperator

#: Matrices of at most this many entries are decomposed as they are.
DENSE_ENTRIES = 2**18


def spectral_norm(operator: ConvOperator, *, rtol: float) -> float:
    """Return the largest singular value of `operator`, to the relative error `rtol`.

    A small matrix is decomposed by LAPACK. A larger one goes to ARPACK's Lanczos iteration on
    ``W^H W`` (or ``W W^H``, the smaller), in float64, from a fixed start; it ends when the
    residual of the eigenvalue is below ``rtol`` of it.
    """
    from scipy.sparse.linalg import LinearOperator, eigsh

    if not isinstance(rtol, (int, float)) or not 1e-12 <= rtol <= 0.1:
        raise ValueError(f"rtol: expected a number from 1e-12 to 0.1, got {rtol!r}")
    if not np.isfinite(operator.kernel).all():
        raise ValueError("kernel: expected finite values for a norm, got an infinity or NaN")
    rows, columns = operator.shape
    wide = np.complex128 if operator.dtype.kind == "c" else np.float64
    kernel = operator.kernel.astype(wide)
    scale = float(np.abs(kernel).max())
    if 0 in (rows, columns) or operator.geometry.nnz == 0 or scale == 0:
        return 0.0
    operator = operator.with_kernel(kernel / scale)
    if rows * columns <= DENSE_ENTRIES:
        return scale * float(np.linalg.norm(operator.as_matmul().toarray(), 2))
    small, other = (operator, operator.H) if columns <= rows else (operator.H, operator)
    first, second = small.as_linear_operator(), other.as_linear_operator()
    gram = LinearOperator(
        (min(rows, columns),) * 2, matvec=lambda v: second @ (first @ v), dtype=wide
    )
    size = gram.shape[0]
    start = np.random.default_rng(0).standard_normal(size).astype(wide)
    (eigenvalue,) = eigsh(
        gram, k=1, v0=start, tol=rtol, ncv=min(size, 64), return_eigenvectors=False
    )
    return scale * math.sqrt(max(0.0, float(eigenvalue)))
