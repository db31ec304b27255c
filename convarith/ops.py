"""The public products: validate, plan, run."""

from __future__ import annotations

import numpy as np

from . import checks
from .arrays import numeric
from .backends.protocol import PLAIN
from .dlpack import any_library
from .padding import Padding
from .validate import PerAxis


@any_library
def conv(
    x: np.ndarray,
    kernel: np.ndarray,
    *,
    strides: PerAxis = 1,
    padding: Padding = "VALID",
    dilations: PerAxis = 1,
    groups: int = 1,
    scale: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    residual: np.ndarray | None = None,
    activation: str | None = None,
    out: np.ndarray | None = None,
    algorithm: str | None = None,
    precision: str = "float32",
    backend: str | None = None,
) -> np.ndarray:
    """Return the convolution ``W x`` (a cross-correlation, as in every network).

    Parameters
    ----------
    x : ndarray
        ``(n, *spatial, c_in)`` with any number of spatial axes; or 1 or 2 axes without batch
        and channels, with a kernel of as many.
    kernel : ndarray
        ``(*k, c_in // groups, c_out)``, or as many axes as a bare `x` has.
    strides, padding, dilations, groups
        As `ConvGeometry` takes them.
    scale, bias : ndarray, optional
        One entry an output channel; see Returns.
    residual : ndarray, optional
        Of the result's shape.
    activation : {None, "relu", "relu6"}
        Not for complex results. NaN passes.
    out : ndarray, optional
        Where to write the result, of its shape and dtype. It may overlap an operand.
    algorithm : {None, "direct", "winograd"}
        None lets the backend choose by the geometry alone. "winograd" is refused where it does
        not apply.
    precision : {"float32", "tf32"}
        What float32 products are rounded to; "tf32" exists on CUDA only.
    backend : {None, "cpu", "reference", "cuda"}
        None chooses by the type of the arrays: for NumPy's "cpu", Numba kernels on all cores (see
        `set_num_threads`), or the reference where Numba is not installed; for CuPy's "cuda".
        Complex numbers, longdouble and more than three spatial axes are always the reference's,
        and refused for CuPy's arrays, which nothing copies to where the reference runs.

    Returns
    -------
    ndarray
        ``activation(scale*(W x) + bias + residual)``, of shape ``(n, *output_size, c_out)``
        and dtype ``np.result_type(x, kernel)``, computed in it, or in float32 for the half
        types. Integers are exact modulo 2**bits. A zero axis gives an empty result.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what was expected and what came, before anything is allocated.

    Notes
    -----
    A float result is within ``(m + 1) * eps * (|W| |x|)`` of the exact one, barring overflow and
    underflow, where ``m`` counts the terms of a sum (kernel entries times ``c_in // groups``)
    and ``eps`` belongs to the dtype computed in; half types are rounded once more. Winograd's
    bound is as large in the mean but holds for the largest entry near by: see
    `convarith.backends.cpu.winograd`. ``precision="tf32"`` rounds both operands to 11 bits first,
    to the nearest, which adds ``2**-10 * (|W| |x|)``. A tap in the padding contributes nothing,
    even where the kernel holds an infinity.

    The same arguments give the same bits on any number of threads, and, but for Winograd, as a
    tile or as part of the whole.

    All arrays of a call are NumPy's, or CuPy's on one device, or another library's that speaks
    DLPack, as torch's and JAX's do; the result is of the same library, and nothing is copied
    between libraries or devices. On CUDA the work is queued on CuPy's current stream and not
    waited for.

    Dumoulin & Visin, arXiv:1603.07285.

    Examples
    --------
    >>> X, K = np.arange(1, 17).reshape(4, 4), np.arange(1, 10).reshape(3, 3)
    >>> conv(X, K)
    array([[348, 393],
           [528, 573]])
    >>> conv(np.ones((1, 64, 64, 3)), np.ones((4, 4, 3, 10)), strides=2, padding="SAME").shape
    (1, 32, 32, 10)
    """
    x = numeric("x", x)
    kernel = numeric("kernel", kernel, x)
    call, plan = checks.planned(
        checks.forward,
        x,
        kernel,
        *(strides, padding, dilations, groups, algorithm, precision, backend),
    )
    epilogue = call.epilogue(x, scale, bias, residual, activation)
    if call.bare:
        x, kernel = x[None, ..., None], kernel[..., None, None]
    return call.run(plan, x, kernel, epilogue, out)


@any_library
def conv_transpose(
    y: np.ndarray,
    kernel: np.ndarray,
    *,
    strides: PerAxis = 1,
    padding: Padding = "VALID",
    dilations: PerAxis = 1,
    groups: int = 1,
    output_size: PerAxis | None = None,
    scale: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    residual: np.ndarray | None = None,
    activation: str | None = None,
    out: np.ndarray | None = None,
    algorithm: str | None = None,
    precision: str = "float32",
    backend: str | None = None,
) -> np.ndarray:
    """Return the transposed convolution ``W^T y``, the exact adjoint of `conv` for real arrays.

    It takes **the same kernel and the same arguments** as the `conv` whose transpose it is;
    nothing is conjugated.

    Parameters
    ----------
    y : ndarray
        ``(n, *spatial, c_out)``, or 1 or 2 axes with a kernel of as many.
    kernel : ndarray
        ``(*k, c_in // groups, c_out)`` (TensorFlow's ``(kh, kw, out, in)`` for transposed
        filters is this same array).
    output_size : int or tuple of int, optional
        The spatial size of the result: any that `conv` maps to the size of `y`. Default:
        ``spatial * stride`` for the SAME paddings, otherwise what the windows cover less the
        padding, ``s(spatial - 1) + ke - low - high``.
    strides, padding, dilations, groups, scale, bias, residual, activation, out, algorithm, \
precision, backend
        As in `conv`; `scale` and `bias` have ``c_in`` entries.

    Returns
    -------
    ndarray
        ``activation(scale*(W^T y) + bias + residual)`` of shape ``(n, *output_size, c_in)``.
        Entries that no window reaches get nothing from `y`.

    Raises
    ------
    TypeError, ValueError
        As `conv`; an `output_size` that does not fit is answered with the range that does.

    Notes
    -----
    The error bound is that of `conv` with ``c_out // groups`` channels. Dumoulin & Visin,
    arXiv:1603.07285, chapter 4.

    Examples
    --------
    >>> K = np.ones((4, 4, 3, 10))
    >>> conv_transpose(np.ones((1, 32, 32, 10)), K, strides=2, padding="SAME").shape
    (1, 64, 64, 3)
    >>> conv_transpose(np.array([1, 2]), np.array([1, 10, 100]), strides=2, output_size=6)
    array([  1,  10, 102,  20, 200,   0])
    """
    y = numeric("y", y)
    kernel = numeric("kernel", kernel, y)
    call, plan = checks.planned(
        checks.transpose,
        y,
        kernel,
        *(strides, padding, dilations, groups, output_size, algorithm, precision, backend),
    )
    epilogue = call.epilogue(y, scale, bias, residual, activation)
    if call.bare:
        y, kernel = y[None, ..., None], kernel[..., None, None]
    return call.run(plan, y, kernel, epilogue, out)


@any_library
def conv_kernel_gradient(
    x: np.ndarray,
    g: np.ndarray,
    kernel_size: PerAxis,
    *,
    strides: PerAxis = 1,
    padding: Padding = "VALID",
    dilations: PerAxis = 1,
    groups: int = 1,
    out: np.ndarray | None = None,
    algorithm: str | None = None,
    precision: str = "float32",
    backend: str | None = None,
) -> np.ndarray:
    """Return the derivative of ``<g, conv(x, kernel)>`` in the kernel, nothing conjugated.

    Parameters
    ----------
    x : ndarray
        ``(n, *spatial, c_in)``, or 1 or 2 axes without batch and channels.
    g : ndarray
        Of the shape of ``conv(x, kernel, ...)``.
    kernel_size : int or tuple of int
        The spatial size of the kernel.
    strides, padding, dilations, groups, out, algorithm, precision, backend
        As in `conv`.

    Returns
    -------
    ndarray
        ``(*kernel_size, c_in // groups, c_out)``, or as many axes as a bare `x` has, of dtype
        ``np.result_type(x, g)``.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what was expected and what came.

    Notes
    -----
    A float32 result is within ``2 * eps * (|g| |x|)`` of the exact one on the reference (the sum
    runs in float64), others within ``(m + 1) * eps * (|g| |x|)`` for a sum of ``m`` terms.
    Winograd's bound holds for the largest entry of the kernel, and an Inf or NaN may spread to all
    taps of its channel: see `convarith.backends.cpu.winograd_gradient`.

    Examples
    --------
    >>> x, g = np.arange(1., 17.).reshape(4, 4), np.array([[1., 0.], [0., 0.]])
    >>> conv_kernel_gradient(x, g, 3)
    array([[ 1.,  2.,  3.],
           [ 5.,  6.,  7.],
           [ 9., 10., 11.]])
    """
    x = numeric("x", x)
    g = numeric("g", g, x)
    call, plan = checks.planned(
        checks.kernel_gradient,
        x,
        g,
        *(kernel_size, strides, padding, dilations, groups, algorithm, precision, backend),
    )
    if call.bare:
        x, g = x[None, ..., None], g[None, ..., None]
    return call.run(plan, x, g, PLAIN, out)
