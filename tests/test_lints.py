"""Lints against what the transposed convolution of ones really gives."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from convarith import (
    ConvGeometry,
    bilinear_kernel,
    checkerboard,
    conv_transpose,
    partition_of_unity,
)
from convarith.testing import geometries


@given(geometries(ranks=(1, 2), max_size=4, min_padding=0), st.integers(0, 2**32 - 1))
def test_counts_and_sums_are_those_of_ones(geometry, seed):
    """On an input that is large enough, away from the border, to the integer."""
    rng = np.random.default_rng(seed)
    kernel = rng.integers(-9, 10, geometry.kernel_shape)
    margin = max(geometry.effective_kernel_size)
    size = tuple(2 * margin + 2 for _ in geometry.strides)
    options = {name: getattr(geometry, name) for name in ("strides", "dilations", "groups")}
    padding = [(min(low, 3), 0) for low, _ in geometry.padding]
    large = ConvGeometry.of_transpose(
        size,
        geometry.kernel_size,
        **options,
        padding=padding,
        in_channels=geometry.out_channels,
        out_channels=geometry.in_channels,
    )
    found = checkerboard(large, kernel)
    ones = np.ones((1, *size, geometry.out_channels), int)
    values = conv_transpose(ones, kernel, padding=padding, **options)[0]
    width = geometry.in_channels // geometry.groups
    for p in np.ndindex(*geometry.strides):
        inside = tuple(
            slice(a + s * margin, -s * margin, s) for a, s in zip(p, geometry.strides, strict=True)
        )
        block = values[inside]
        # of each group, what its channels take summed up
        per_group = found.sums[p].reshape(width, geometry.groups, -1).sum(-1).T.ravel()
        assert (block == per_group).all()
    assert found.found == (np.ptp(found.sums, axis=tuple(range(geometry.rank))) > 0).any()
    assert found.counts.sum() == np.prod(geometry.kernel_size)


@pytest.mark.parametrize("factor", range(1, 17))
@pytest.mark.parametrize("channels", [1, 3])
def test_bilinear_kernels_pass(factor, channels):
    kernel = bilinear_kernel(channels, channels, 2 * factor - factor % 2)
    geometry = ConvGeometry.of_transpose(
        (5, 5), kernel.shape[:2], strides=factor, in_channels=channels, out_channels=channels
    )
    found = checkerboard(geometry, kernel)
    assert not found and "no checkerboard" in str(found)
    assert partition_of_unity(geometry, kernel) and partition_of_unity(geometry.adjoint, kernel)
    assert not partition_of_unity(geometry, kernel * np.float32(1.001))
    kernel[0, 0, 0, 0] += np.float32(1e-4)
    assert bool(checkerboard(geometry, kernel)) == (factor > 1)
    assert "differ by up to 0.0001" in str(checkerboard(geometry, kernel)) or factor == 1


def test_overlap_alone():
    """Odena, Dumoulin & Olah: a kernel size that the stride divides overlaps evenly."""
    for k in range(1, 9):
        for s in range(1, 5):
            found = checkerboard(ConvGeometry.of_transpose(9, k, strides=s))
            assert found.found == bool(k % s) and found.sums is None
    dilated = checkerboard(ConvGeometry.of_transpose(9, 4, strides=2, dilations=2))
    assert dilated.counts.tolist() == [4, 0] and dilated.found


def test_phases_are_those_of_the_output():
    """padding=1 moves them by one."""
    kernel = np.array([1, 2, 4])
    for padding, expected in ((0, [5, 2]), (1, [2, 5])):
        geometry = ConvGeometry.of_transpose(9, 3, strides=2, padding=padding)
        assert checkerboard(geometry, kernel).sums[:, 0, 0].tolist() == expected
        assert (
            conv_transpose(np.ones(9, int), kernel, strides=2, padding=padding)[8:10].tolist()
            == expected
        )


@given(st.integers(1, 3), st.integers(1, 3))
def test_depthwise_and_dense_partitions(groups, width):
    channels = groups * width
    geometry = ConvGeometry.of_transpose(
        5, 4, strides=2, groups=groups, in_channels=channels, out_channels=channels
    )
    weights = np.array([0.25, 0.75, 0.75, 0.25])
    kernel = np.zeros(geometry.kernel_shape)
    for c in range(channels):
        kernel[:, c % width, c] = weights
    assert partition_of_unity(geometry, kernel)
    ones = conv_transpose(np.ones((1, 9, channels)), kernel, strides=2, groups=groups)
    assert (ones[0, 2:-2] == 1).all()
    assume(width > 1)
    kernel[:, [0, 1]] = kernel[:, [1, 0]]  # constants change places
    assert not partition_of_unity(geometry, kernel)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_kernels_are_judged_by_their_own_rounding(dtype):
    kernel = bilinear_kernel(1, 1, 10)[:, :, 0, 0]  # fifths, which no half type holds
    half = kernel.astype(pytest.importorskip("ml_dtypes").bfloat16 if dtype[0] == "b" else dtype)
    geometry = ConvGeometry.of_transpose((5, 5), 10, strides=5)
    assert not checkerboard(geometry, half) and partition_of_unity(geometry, half)
    assert checkerboard(geometry, half.astype("float64"))


def test_integers_are_judged_exactly():
    geometry = ConvGeometry(9, 2, strides=2)
    assert checkerboard(geometry, np.array([2**53 + 1, 2**53]))
    assert not checkerboard(geometry, np.array([2**53 + 1, 2**53 + 1]))


def test_paddings_and_dilations_without_bound():
    geometry = ConvGeometry(9, 3, strides=2, padding=2**70, dilations=2**70 + 1)
    assert checkerboard(geometry, np.array([1, 2, 4])).sums[:, 0, 0].tolist() == [5, 2]


def test_what_is_refused():
    geometry = ConvGeometry(9, 3, in_channels=2, out_channels=2)
    with pytest.raises(ValueError, match=r"kernel: expected shape \(3, 2, 2\), got \(3,\)"):
        checkerboard(geometry, np.ones(3))
    with pytest.raises(TypeError, match="kernel: expected real numbers"):
        partition_of_unity(geometry, np.ones((3, 2, 2)) * 1j)
    with pytest.raises(ValueError, match="bytes"):
        checkerboard(ConvGeometry(9, 3, strides=2**62))
    with pytest.raises(ValueError, match="bytes"):
        checkerboard(ConvGeometry(9, 2**50))
    with pytest.raises(ValueError, match="bytes"):
        large = ConvGeometry(9, 3, strides=2**40, in_channels=2, out_channels=2)
        partition_of_unity(large, np.ones((3, 2, 2)))
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="kernel: expected finite numbers"):
            checkerboard(ConvGeometry(9, 3), np.array([1, bad, 1]))
    for call in (checkerboard, partition_of_unity):
        with pytest.raises(TypeError, match="geometry: expected a ConvGeometry"):
            call(3, np.ones(3))
    other = ConvGeometry(9, 3, in_channels=1, out_channels=2)
    assert not partition_of_unity(other, np.ones((3, 1, 2)))
    other = ConvGeometry(9, 1, groups=2, in_channels=2, out_channels=4)
    assert not partition_of_unity(other, np.ones((1, 1, 4)))


def test_tensors_are_judged_too(torch):
    kernel = torch.tensor([1.0, 2.0, 1.0])
    geometry = ConvGeometry(9, 3, strides=2)
    assert partition_of_unity(geometry, kernel / 2) and not partition_of_unity(geometry, kernel)
    assert type(checkerboard(geometry, kernel=kernel).sums) is np.ndarray


@pytest.mark.cuda
def test_a_kernel_on_a_device_is_read():
    cupy = pytest.importorskip("cupy")
    geometry = ConvGeometry(9, 3, strides=2)
    for kernel in (np.array([1.0, 2.0, 1.0]), np.array([1, 2, 4])):
        here, there = checkerboard(geometry, kernel), checkerboard(geometry, cupy.asarray(kernel))
        assert type(there.sums) is np.ndarray and there.found == here.found
        np.testing.assert_array_equal(there.sums, here.sums)
    assert partition_of_unity(geometry, cupy.asarray([0.5, 1.0, 0.5]))
