"""What holds for every framework's module: arguments express a geometry, translations run."""

import importlib

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from convarith import ConvGeometry, conv, conv_transpose
from convarith.conventions import Inexpressible, translate
from convarith.conventions.layout import KERNEL, moved
from convarith.testing import geometries, small_integers, window

FRAMEWORKS = ("tensorflow", "keras", "torch", "jax", "onnx")
NAMES_GROUPS = ("torch", "jax", "onnx")


def padded(array, pairs):
    """Pad the spatial axes of ``(n, *spatial, c)`` by zeros; negative amounts crop."""
    pairs = ((0, 0), *pairs, (0, 0))
    array = np.pad(array, [(max(0, low), max(0, high)) for low, high in pairs])
    kept = [
        slice(max(0, -low), size - max(0, -high))
        for (low, high), size in zip(pairs, array.shape, strict=True)
    ]
    return array[tuple(kept)]


def module(framework):
    return importlib.import_module(f"convarith.conventions.{framework}")


def called(framework, geometry, transposed, arguments, x, kernel):
    """Return our `framework`'s result of channels-last operands, channels last."""
    name, array, axes, flipped, _ = module(framework).spelling(
        geometry.rank, transposed=transposed, **arguments
    )
    if flipped:
        kernel = kernel[(slice(None, None, -1),) * geometry.rank]
    weights = moved(kernel, KERNEL[transposed], axes)
    result = getattr(module(framework), name)(moved(x, "n*c", array), weights, **arguments)
    return moved(result, array, "n*c")


def operands(geometry, transposed, seed):
    rng = np.random.default_rng(seed)
    shape = geometry.output_shape if transposed else geometry.input_shape
    x = small_integers(rng, (1, *shape), "float64")
    return x, small_integers(rng, geometry.kernel_shape, "float64")


def cropped(array, pairs):
    return padded(array, [(-low, -high) for low, high in pairs])


def no_way(framework, geometry, transposed):
    """Whether no pad or crop can help: something is empty, or cannot be said at all."""
    if 0 in geometry.input_size or 0 in geometry.output_size:
        return True
    if transposed:
        return geometry.groups > 1 and framework in ("keras", "jax")
    return framework == "keras" and max(geometry.strides) > 1 and max(geometry.dilations) > 1


@pytest.mark.parametrize("framework", FRAMEWORKS)
@given(geometry=geometries(max_size=8), transposed=st.booleans(), seed=st.integers(0, 2**32 - 1))
def test_arguments_express_the_geometry(framework, geometry, transposed, seed):
    """The call with the arguments given, and the pad or crop named, is `conv` or its transpose."""
    pad = crop = None
    try:
        arguments = module(framework).arguments(geometry, transposed=transposed)
    except Inexpressible as error:
        arguments, pad, crop = error.arguments, error.pad, error.crop
        if arguments is None:
            assert no_way(framework, geometry, transposed)
            return
        assert str(pad or crop) in str(error)
    x, kernel = operands(geometry, transposed, seed)
    given = window(geometry)
    if transposed:
        expected = conv_transpose(x, kernel, output_size=geometry.input_size, **given)
    else:
        expected = conv(x, kernel, **given)
    x = x if pad is None else padded(x, pad)
    result = called(framework, geometry, transposed, arguments, x, kernel)
    result = result if crop is None else cropped(result, crop)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("target", FRAMEWORKS)
@given(
    source=st.sampled_from(FRAMEWORKS),
    geometry=geometries(max_size=8),
    transposed=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_translations_are_the_same_map(target, source, geometry, transposed, seed):
    """The source's call and the target's, with what the report says to do, agree to the bit."""
    wanted = geometry.adjoint if transposed else geometry
    size = wanted.input_size
    try:
        given = module(source).arguments(geometry, transposed=transposed)
    except Inexpressible as error:  # then the layer without its pad or crop
        given = error.arguments
        assume(given is not None)
        if error.pad is not None:
            size = tuple(i + low + high for i, (low, high) in zip(size, error.pad, strict=True))
    channels = {"in_channels": wanted.in_channels, "out_channels": wanted.out_channels}
    groups = {} if source in NAMES_GROUPS else {"groups": geometry.groups}
    wanted = module(source).geometry_of(
        size, geometry.kernel_size, transposed=transposed, **channels, **given, **groups
    )
    layer = {"kernel_size": geometry.kernel_size, "input_size": size, "transposed": transposed}
    try:
        translation = translate(source, target, **layer, **channels, **given, **groups)
    except Inexpressible:
        assert no_way(target, wanted.convolution, transposed)
        return
    x, kernel = operands(wanted.convolution, transposed, seed)
    expected = called(source, geometry, transposed, given, x, kernel)
    theirs = module(source).spelling(geometry.rank, transposed=transposed, **given)
    weights = moved(kernel, KERNEL[transposed], theirs.kernel)
    weights = weights.transpose(translation.kernel_axes)
    name, array, axes, flipped, _ = module(target).spelling(
        geometry.rank, transposed=transposed, **translation.arguments
    )
    assert (translation.function, translation.kernel_flipped) == (name, flipped != theirs.flipped)
    if translation.pad is not None:
        x = padded(x, translation.pad)
    arguments = translation.arguments
    x = moved(x, "n*c", theirs.array).transpose(translation.array_axes)
    result = getattr(module(target), name)(x, weights, **arguments)
    result = moved(result, array, "n*c")
    if translation.crop is not None:
        result = cropped(result, translation.crop)
    np.testing.assert_array_equal(result, expected)
    for said in (source, target, *map(str, filter(None, (translation.pad, translation.crop)))):
        assert said in translation.report


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_transposed_geometry_is_written_transposed(framework):
    geometry = ConvGeometry((9, 8), 3, strides=2, padding=0)
    options = {"batch": 2} if framework == "tensorflow" else {}
    expected = module(framework).arguments(geometry, transposed=True, **options)
    assert module(framework).arguments(geometry.adjoint, **options) == expected
    assert module(framework).arguments(geometry.adjoint, transposed=True, **options) == expected


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_unknown_arguments_are_refused_by_name(framework):
    with pytest.raises(TypeError, match=f"stridess: expected an argument of {framework}, "):
        translate(framework, "torch", kernel_size=3, stridess=2)


def test_without_a_size_the_answer_is_one_for_all_sizes():
    layer = {"kernel_size": (3, 3), "strides": 2, "padding": "same"}
    with pytest.raises(Inexpressible, match="input_size: torch says it one way for"):
        translate("keras", "torch", **layer)
    assert translate("keras", "torch", **layer, input_size=(8, 8)).pad == ((0, 1), (0, 1))
    assert translate("keras", "torch", **layer, input_size=(9, 9)).pad is None
    up = translate("keras", "torch", **layer, transposed=True)
    assert up.crop == ((0, 1), (0, 1)) and "for every size" in up.report
    assert str(up) == up.report


def test_without_a_size_every_remainder_is_asked():
    """A high padding matters for one remainder of a hundred."""
    layer = {"kernel_shape": [3], "strides": [100], "pads": [0, 1]}
    with pytest.raises(Inexpressible, match="input_size: torch says it one way"):
        translate("onnx", "torch", **layer)
    assert translate("onnx", "torch", **layer, input_size=302).pad == ((0, 1),)
    with pytest.raises(Inexpressible, match="input_size: expected one beside strides of"):
        translate("torch", "onnx", kernel_size=3, stride=2**40)
    crop = {"window_strides": (1,), "padding": [(-1000000, 0)]}
    assert translate("jax", "torch", kernel_size=(3,), **crop).pad == ((-1000000, 0),)


def test_a_word_that_serves_every_size_is_found():
    """On even sizes k = s = 2 is valid and same at once, on odd ones only what it was called."""
    layer = {"kernel_size": (2, 2), "strides": 2}
    for word in ("same", "valid"):
        found = translate("keras", "tensorflow", **layer, padding=word)
        assert found.arguments["padding"] == word.upper()
    found = translate("torch", "keras", kernel_size=(2, 2), stride=2)
    assert found.arguments["padding"] == "valid"
    for target, pads in (("jax", ((1, 1),) * 2), ("tensorflow", ((0, 0), (1, 1), (1, 1), (0, 0)))):
        found = translate("torch", target, kernel_size=(4, 4), stride=2, padding=1)
        assert found.arguments["padding"] == pads


def test_a_transpose_written_as_a_plain_call():
    """JAX's lhs_dilation: the target's call is a transposed one, of the flipped kernel."""
    layer = {"window_strides": (1, 1), "lhs_dilation": (2, 2), "padding": [(1, 2), (1, 2)]}
    found = translate("jax", "torch", kernel_size=(3, 3), **layer)
    assert found.function == "conv_transpose2d" and found.kernel_flipped
    rng = np.random.default_rng(0)
    x = small_integers(rng, (1, 2, 5, 6), "float64")
    kernel = small_integers(rng, (4, 2, 3, 3), "float64")
    expected = module("jax").conv_general_dilated(x, kernel, **layer)
    weights = kernel[:, :, ::-1, ::-1].transpose(found.kernel_axes)
    result = module("torch").conv_transpose2d(x, weights, **found.arguments)
    np.testing.assert_array_equal(result, expected)
    with pytest.raises(Inexpressible, match="transposed: jax writes"):
        translate("jax", "torch", kernel_size=(3, 3), feature_group_count=2, **layer)


@pytest.mark.parametrize("word", ["SAME_UPPER", "SAME_LOWER"])
def test_onnx_says_same_by_its_word_for_every_size(word):
    """Numbers would be those of one size."""
    layer = {"kernel_size": (3, 3), "strides": [2, 2], "auto_pad": word}
    assert translate("onnx", "onnx", **layer).arguments["auto_pad"] == word
    padding = {"SAME_UPPER": "SAME", "SAME_LOWER": "SAME_LOWER"}[word]
    there = translate("onnx", "jax", **layer)
    assert there.arguments["padding"] == padding
    layer = {"kernel_size": (3, 3), "window_strides": (2, 2), "padding": padding}
    assert translate("jax", "onnx", **layer).arguments["auto_pad"] == word
    with pytest.raises(Inexpressible, match="give the size"):  # ONNX Runtime reads it otherwise
        translate("jax", "onnx", **(layer | {"window_strides": (4, 4)}))


def test_an_output_with_axes_of_its_own():
    layer = {"kernel_size": (3, 3), "window_strides": (1, 1), "padding": "SAME"}
    words = ("NWHC", "HWIO", "NWHC")  # spatial axes in another order than the kernel's
    found = translate("jax", "torch", **layer, dimension_numbers=words)
    assert (found.array_axes, found.kernel_axes) == ((0, 3, 2, 1), (3, 2, 0, 1))
    words = ("NHWC", "HWIO", "NCHW")
    with pytest.raises(Inexpressible, match="^dimension_numbers: torch gives the axes"):
        translate("jax", "torch", **layer, dimension_numbers=words)


def test_what_translate_refuses():
    for source, shape in (("tensorflow", (1, 10, 10, 1)), ("onnx", [10, 10])):
        layer = {"kernel_size": (3, 3), "strides": [2, 2], "output_shape": shape}
        with pytest.raises(ValueError, match="^input_size: expected one beside an output_shape"):
            translate(source, "torch", transposed=True, **layer)
    with pytest.raises(ValueError, match="^padding: expected .* got None"):
        translate("jax", "torch", kernel_size=(3, 3))
    for framework in FRAMEWORKS:
        with pytest.raises(TypeError, match="^geometry: expected a ConvGeometry, got None"):
            module(framework).arguments(None)
        with pytest.raises(TypeError, match="^transposed: expected a bool, got 'yes'"):
            module(framework).arguments(ConvGeometry(5, 3), transposed="yes")
    with pytest.raises(TypeError, match="transposed: expected a bool"):
        translate("keras", "torch", kernel_size=3, transposed="no")
    for framework in ("torch", "keras", "tensorflow"):
        with pytest.raises(ValueError, match="^(input_size|kernel_size): .*(1 to 3|3 axes)"):
            translate("onnx", framework, kernel_shape=[1] * 4)
