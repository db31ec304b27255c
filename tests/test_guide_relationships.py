"""The fifteen relationships of Dumoulin & Visin's guide (arXiv:1603.07285), by their numbers.

Symbols as there: input i, kernel k, stride s, zero padding p, output o; primes are the
transposed convolution's. Each is checked over all small sizes; where the guide gives a
transposed convolution as an equivalent direct one (stretched and padded anew), values are
checked too.
"""

import numpy as np
import pytest

from convarith import ConvGeometry, conv, conv_transpose

SIZES = [(i, k) for k in range(1, 6) for i in range(k, 11)]
PADDED = [(i, k, p) for i, k in SIZES for p in range(k)]


def output(i, k, **arguments):
    return ConvGeometry(i, k, **arguments).output_size[0]


def transposed(o, k, i=None, **arguments):
    return ConvGeometry.of_transpose(o, k, output_size=i, **arguments).input_size[0]


def test_relationship_1_no_padding_unit_strides():
    for i, k in SIZES:
        assert output(i, k) == (i - k) + 1


def test_relationship_2_padding_unit_strides():
    for i, k, p in PADDED:
        assert output(i, k, padding=p) == (i - k) + 2 * p + 1


def test_relationship_3_half_padding():
    for i, k in SIZES:
        if k % 2:
            assert output(i, k, padding=k // 2) == i
            assert output(i, k, padding="SAME") == i


def test_relationship_4_full_padding():
    for i, k in SIZES:
        assert output(i, k, padding=k - 1) == i + (k - 1)


def test_relationship_5_no_padding_strides():
    for i, k in SIZES:
        for s in range(1, 5):
            assert output(i, k, strides=s) == (i - k) // s + 1


def test_relationship_6_padding_strides():
    for i, k, p in PADDED:
        for s in range(1, 5):
            assert output(i, k, strides=s, padding=p) == (i + 2 * p - k) // s + 1


def test_relationship_7_pooling():
    """Pooling slides the same windows: averaging is the convolution with a constant kernel."""
    for i, k in SIZES:
        for s in range(1, 5):
            x = np.arange(float(i)) ** 2
            pooled = [x[o * s : o * s + k].mean() for o in range((i - k) // s + 1)]
            np.testing.assert_allclose(conv(x, np.full(k, 1 / k), strides=s), pooled)


def check_equivalent(i, k, p, s, o):
    """The transpose is the direct convolution of the stretched input, padded by k - p - 1."""
    y, kernel = np.arange(1.0, o + 1), np.arange(1.0, k + 1)
    a = (i + 2 * p - k) % s
    stretched = np.zeros(s * (o - 1) + 1 + a)  # a zeros more at the end (relationship 14)
    stretched[: s * (o - 1) + 1 : s] = y
    direct = conv(stretched, kernel[::-1], padding=k - p - 1)
    np.testing.assert_array_equal(
        conv_transpose(y, kernel, strides=s, padding=p, output_size=i), direct
    )


def test_relationship_8_transposed_no_padding_unit_strides():
    for i, k in SIZES:
        o = output(i, k)
        assert transposed(o, k) == o + (k - 1) == i
        check_equivalent(i, k, 0, 1, o)


def test_relationship_9_transposed_padding_unit_strides():
    for i, k, p in PADDED:
        o = output(i, k, padding=p)
        assert transposed(o, k, padding=p) == o + (k - 1) - 2 * p == i
        check_equivalent(i, k, p, 1, o)


def test_relationship_10_transposed_half_padding():
    for i, k in SIZES:
        if k % 2:
            assert transposed(i, k, padding=k // 2) == i
            check_equivalent(i, k, k // 2, 1, i)


def test_relationship_11_transposed_full_padding():
    for i, k in SIZES:
        o = output(i, k, padding=k - 1)
        assert transposed(o, k, padding=k - 1) == o - (k - 1) == i
        check_equivalent(i, k, k - 1, 1, o)


@pytest.mark.parametrize("s", [2, 3, 4])
def test_relationship_12_transposed_no_padding_strides(s):
    for i, k in SIZES:
        if (i - k) % s == 0:
            o = output(i, k, strides=s)
            assert transposed(o, k, strides=s) == s * (o - 1) + k == i
            check_equivalent(i, k, 0, s, o)


@pytest.mark.parametrize("s", [2, 3, 4])
def test_relationship_13_transposed_padding_strides(s):
    for i, k, p in PADDED:
        if (i + 2 * p - k) % s == 0:
            o = output(i, k, strides=s, padding=p)
            assert transposed(o, k, strides=s, padding=p) == s * (o - 1) + k - 2 * p == i
            check_equivalent(i, k, p, s, o)


@pytest.mark.parametrize("s", [2, 3, 4])
def test_relationship_14_transposed_with_a_remainder(s):
    for i, k, p in PADDED:
        a = (i + 2 * p - k) % s
        o = output(i, k, strides=s, padding=p)
        assert s * (o - 1) + a + k - 2 * p == i
        assert transposed(o, k, i, strides=s, padding=p) == i
        check_equivalent(i, k, p, s, o)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_relationship_15_dilated(d):
    for i, k, p in PADDED:
        for s in range(1, 4):
            if i + 2 * p < k + (k - 1) * (d - 1):
                continue
            o = output(i, k, strides=s, padding=p, dilations=d)
            assert o == (i + 2 * p - k - (k - 1) * (d - 1)) // s + 1
            x, kernel = np.arange(1.0, i + 1), np.arange(1.0, k + 1)
            spread = np.zeros((k - 1) * d + 1)
            spread[::d] = kernel
            np.testing.assert_array_equal(
                conv(x, kernel, strides=s, padding=p, dilations=d),
                conv(x, spread, strides=s, padding=p),
            )
