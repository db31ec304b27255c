"""What holds for every framework's module: arguments express a geometry, translations run."""

import importlib

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from convarith import ConvGeometry, conv, conv_transpose
from convarith.conventions import Inexpressible
from convarith.conventions.layout import KERNEL, moved
from convarith.testing import geometries, small_integers

FRAMEWORKS = ("torch",)


def padded(array, pairs):
    """Pad the spatial axes of ``(n, *spatial, c)`` by zeros; negative amounts crop."""
    pairs = ((0, 0), *pairs, (0, 0))
    array = np.pad(array, [(max(0, low), max(0, high)) for low, high in pairs])
    kept = [
        slice(max(0, -low), size - max(0, -high))
        for (low, high), size in zip(pairs, array.shape, strict=True)
    ]
    return array[tuple(kept)]


@pytest.mark.parametrize("framework", FRAMEWORKS)
@given(geometry=geometries(max_size=8), transposed=st.booleans(), seed=st.integers(0, 2**32 - 1))
def test_arguments_express_the_geometry(framework, geometry, transposed, seed):
    """The call with the arguments given, and the pad or crop named, is `conv` or its transpose."""
    module = importlib.import_module(f"convarith.conventions.{framework}")
    pad = crop = None
    try:
        arguments = module.arguments(geometry, transposed=transposed)
    except Inexpressible as error:
        arguments, pad, crop = error.arguments, error.pad, error.crop
        assume(arguments is not None)
        assert str(pad or crop) in str(error)
    rng = np.random.default_rng(seed)
    kernel = small_integers(rng, geometry.kernel_shape, "float64")
    source = geometry.output_shape if transposed else geometry.input_shape
    x = small_integers(rng, (1, *source), "float64")
    options = {
        name: getattr(geometry, name) for name in ("strides", "dilations", "padding", "groups")
    }
    if transposed:
        expected = conv_transpose(x, kernel, output_size=geometry.input_size, **options)
    else:
        expected = conv(x, kernel, **options)
    name, array, axes, flipped = module.spelling(geometry.rank, transposed=transposed, **arguments)
    assert not flipped
    operand = moved(x if pad is None else padded(x, pad), "n*c", array)
    weights = moved(kernel, KERNEL[transposed], axes)
    result = moved(getattr(module, name)(operand, weights, **arguments), array, "n*c")
    if crop is not None:
        result = padded(result, [(-low, -high) for low, high in crop])
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_transposed_geometry_is_written_transposed(framework):
    module = importlib.import_module(f"convarith.conventions.{framework}")
    geometry = ConvGeometry((9, 8), 3, strides=2, padding=0)
    expected = module.arguments(geometry, transposed=True)
    assert module.arguments(geometry.adjoint) == expected
    assert module.arguments(geometry.adjoint, transposed=True) == expected
