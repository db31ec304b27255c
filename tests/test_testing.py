"""The public checkers catch what they are for."""

import numpy as np
import pytest
from hypothesis import find, given, settings

from convarith import ConvGeometry, conv, conv_kernel_gradient, conv_transpose
from convarith.testing import assert_adjoint, assert_close, geometries, kernels_and_inputs, naive


def test_a_fuzz_in_three_lines():
    @given(kernels_and_inputs())
    def test_mine(case):
        assert_close(conv(case.x, case.kernel, **case.arguments), "forward", case)

    test_mine()


@pytest.mark.parametrize(
    "mistake",
    [
        lambda case: case.arguments | {"padding": [(b, a) for a, b in case.geometry.padding]},
        lambda case: case.arguments | {"dilations": 1},
        lambda case: case.arguments | {"strides": 1},
    ],
    ids=["padding sides exchanged", "dilations dropped", "strides dropped"],
)
def test_a_wrong_convolution_is_found(mistake):
    @settings(report_multiple_bugs=False)
    @given(kernels_and_inputs())
    def test_mine(case):
        assert_close(conv(case.x, case.kernel, **mistake(case)), "forward", case)

    with pytest.raises(AssertionError):
        test_mine()


@pytest.mark.parametrize("product", ["forward", "transpose", "kernel_gradient"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8", "complex64"])
def test_one_wrong_entry_is_found(product, dtype):
    case = find(
        kernels_and_inputs(dtypes=(dtype,), max_batch=1),
        lambda case: len(case.x) and case.geometry.nnz > 20,
    )
    exact = naive(product, case.geometry, *case.operands(product)).astype(dtype)
    assert_close(exact, product, case)
    wrong = exact.copy()
    wrong.flat[0] += 1 if dtype == "int8" else 1000 * np.finfo(dtype).eps
    with pytest.raises(AssertionError):
        assert_close(wrong, product, case)
    with pytest.raises(AssertionError, match="dtype"):
        assert_close(exact.astype("complex128"), product, case)


def test_assert_adjoint_finds_a_wrong_adjoint():
    kernel = np.array([1.0, 2.0, 4.0])

    def forward(x):
        return conv(x, kernel, strides=2, padding="SAME")

    def adjoint(y):
        return conv_transpose(y, kernel, strides=2, padding="SAME", output_size=9)

    assert_adjoint(forward, adjoint, (9,), (5,))
    with pytest.raises(AssertionError, match="differ by"):
        assert_adjoint(forward, lambda y: adjoint(y)[::-1], (9,), (5,))
    with pytest.raises(AssertionError, match="adjoint: expected shape"):
        assert_adjoint(forward, lambda y: adjoint(y)[:-1], (9,), (5,))
    with pytest.raises(AssertionError, match="differ by"):
        assert_adjoint(forward, lambda y: adjoint(y) * (1 + 1e-12), (9,), (5,))


def test_assert_adjoint_conjugates():
    kernel = np.array([1 + 2j, 3 - 1j])

    def forward(x):
        return conv(x, kernel)

    def transpose(y):
        return conv_transpose(y, kernel)

    assert_adjoint(forward, lambda y: conv_transpose(y, kernel.conj()), (5,), (4,), dtype=complex)
    with pytest.raises(AssertionError, match="differ by"):
        assert_adjoint(forward, transpose, (5,), (4,), dtype=complex)


def test_the_strategies_cover_what_they_say():
    wanted = [
        lambda g: g.rank == 3 and 0 not in g.output_size,
        lambda g: 0 in g.input_size,
        lambda g: 0 in g.output_size and 0 not in g.input_size,
        lambda g: any(low < 0 for low, _ in g.padding) and g.nnz,
        lambda g: any(k < s for k, s in zip(g.kernel_size, g.strides, strict=True)) and g.nnz,
        lambda g: g.groups == g.in_channels > 1 and g.nnz,
        lambda g: any(u > 0 for u in g.unread) and g.nnz,
        lambda g: max(g.dilations) > 1 and max(g.strides) > 1 and g.nnz,
    ]
    for condition in wanted:
        assert condition(find(geometries(), condition))


def test_naive_knows_the_textbook():
    x, kernel = np.arange(1, 17).reshape(1, 4, 4, 1), np.arange(1, 10).reshape(3, 3, 1, 1)
    geometry = ConvGeometry((4, 4), 3)
    y = naive("forward", geometry, x, kernel)
    assert y.ravel().tolist() == [348, 393, 528, 573]
    np.testing.assert_array_equal(
        naive("transpose", geometry, y, kernel), conv_transpose(y, kernel)
    )
    np.testing.assert_array_equal(
        naive("kernel_gradient", geometry, x, y), conv_kernel_gradient(x, y, 3)
    )
