"""Depthwise products by windows: rows and steps that go together, and those that are left."""

import itertools

import numpy as np
import pytest

from convarith import ConvGeometry, set_num_threads
from convarith.testing import Trial


@pytest.mark.parametrize("channels", [3, 15, 33])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 3, 4])
@pytest.mark.parametrize("product", ["forward", "kernel_gradient"])
def test_windows_of_a_depthwise_product(backend, product, kernel, stride, channels):
    """Widths and rows around a window's, of which some go together and others are left."""
    sizes = (2, -1), (2, 0), (2, 1), (2, 4), (7, 9)
    for dilation, (height, width), padding in itertools.product((1, 2), sizes, (0, 1, kernel + 2)):
        span = (kernel - 1) * dilation + 1
        size = max(1, height * stride + span - 2 * padding), max(1, span + width)
        geometry = ConvGeometry(
            size,
            kernel,
            strides=stride,
            dilations=dilation,
            padding=padding,
            groups=channels,
            in_channels=channels,
            out_channels=channels,
        )
        Trial(product, geometry, out="C", backend=backend).check()


@pytest.mark.parametrize("kernel, stride", [(3, 1), (5, 1), ((8, 2), 3)])
def test_windows_of_depthwise_outputs(backend, kernel, stride):
    """Several rows at a time and one by one, with what is fused."""
    fused = "scale", "bias", "residual"
    for size, parts in itertools.product(((9, 8), (17, 22)), ((), fused)):
        geometry = ConvGeometry(
            size,
            kernel,
            strides=stride,
            padding="SAME",
            groups=19,
            in_channels=19,
            out_channels=19,
        )
        Trial("forward", geometry, batch=2, parts=parts, out="C", backend=backend).check()


SLIDING = {
    "strips": ConvGeometry((3, 600), 3, padding=1, groups=5, in_channels=5, out_channels=5),
    "chunks": ConvGeometry((70, 40), 3, padding=1, groups=33, in_channels=33, out_channels=33),
    "more taps than a window has": ConvGeometry(
        (9, 40), (4, 11), padding=5, groups=18, in_channels=18, out_channels=18
    ),
    "outputs far apart": ConvGeometry(
        (40, 40), 3, dilations=19, padding=19, groups=3, in_channels=3, out_channels=3
    ),
    "one axis": ConvGeometry(
        (5000,), 3, dilations=3, strides=2, groups=17, in_channels=17, out_channels=17
    ),
    "three axes": ConvGeometry(
        (5, 9, 30), 3, padding=1, groups=20, in_channels=20, out_channels=20
    ),
}


@pytest.mark.parametrize("product", ["forward", "kernel_gradient"])
@pytest.mark.parametrize(
    "name, dtype",
    [*((name, "float32") for name in SLIDING), *(("chunks", d) for d in ("float64", "int32"))],
)
def test_depthwise_products_do_not_depend_on_threads(backend, product, name, dtype):
    """Sums of a gradient's chunks are added up in their order."""
    results = []
    try:
        for threads in (1, 2, 5):
            set_num_threads(threads)
            trial = Trial(product, SLIDING[name], batch=2, dtype=dtype, out="C", backend=backend)
            results.append(trial.check())
    finally:
        set_num_threads(None)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])
