"""Where a fast kernel has its edges: tiles half full, vectors cut short, windows in the padding.

Every array lies between guard bands of NaN, so that a stray read shows in the result, and a
stray write in the band. Kernels have every structure that a backend may look for.
"""

import functools
import itertools
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from convarith import (
    ConvGeometry,
    conv,
    conv_kernel_gradient,
    conv_transpose,
    set_num_threads,
)
from convarith.testing import (
    LAYOUTS,
    STRUCTURES,
    Trial,
    fenced,
    random_array,
    structured_kernel,
    tile_geometries,
    trials,
    window,
    winograd_geometries,
)
from convarith.testing.trial import PRODUCTS

every_product = pytest.mark.parametrize("product", PRODUCTS)
some_examples = settings(max_examples=150)


@every_product
@settings(max_examples=200)
@given(data=st.data())
def test_the_edges_of_tiles(backend, product, data):
    data.draw(trials(tile_geometries(), products=(product,), backend=backend)).check()


@every_product
@some_examples
@given(data=st.data())
def test_three_by_three(backend, product, data):
    """Where a backend may take Winograd's algorithm by itself."""
    floats = ("float32", "float32", "float64", "float16")
    drawn = trials(winograd_geometries(), products=(product,), dtypes=floats, backend=backend)
    data.draw(drawn).check()


@every_product
@pytest.mark.parametrize("c_in", [1, 3, 15, 17, 21])
@pytest.mark.parametrize("c_out", [1, 3, 15, 17, 21])
def test_channels_beside_the_vector_width(backend, product, c_in, c_out):
    for kernel, stride, dtype in itertools.product((1, 3), (1, 2), ("float32", "float64")):
        geometry = ConvGeometry(
            (3, 29), kernel, strides=stride, padding="SAME", in_channels=c_in, out_channels=c_out
        )
        Trial(product, geometry, dtype=dtype, backend=backend, out="C").check()


@pytest.mark.parametrize("product", ["forward", "transpose"])
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("stride", [1, 2, 8])
def test_structured_kernels(backend, product, structure, stride):
    """As in an upsampling: kernels twice as long as the stride, as many channels in as out."""
    geometry = ConvGeometry(
        (2 * stride, 5 * stride),
        2 * stride,
        strides=stride,
        padding="SAME",
        in_channels=5 if stride == 8 else 21,
        out_channels=5 if stride == 8 else 21,
    )
    trial = functools.partial(Trial, product, geometry, structure=structure, backend=backend)
    for dtype in ("float32", "float64", "int32"):
        once = trial(dtype=dtype, out="C", algorithm="direct").check()
        np.testing.assert_array_equal(
            trial(dtype=dtype, operator=True, algorithm="direct").check(), once
        )


WINDOWS = {
    "windows wholly in the padding": ConvGeometry(
        (2, 3), 3, padding=((5, 4), (7, 9)), in_channels=5, out_channels=17
    ),
    "nothing but padding": ConvGeometry((0, 9), 2, padding=3, in_channels=3, out_channels=2),
    "every window in the padding": ConvGeometry(
        (1, 2), 1, strides=4, padding=((2, 0), (3, 3)), in_channels=4, out_channels=16
    ),
    "taps between the inputs": ConvGeometry(
        (2, 2), 2, dilations=5, padding=4, in_channels=16, out_channels=16
    ),
    "a kernel as long as the input": ConvGeometry(
        (7, 7), 7, strides=3, padding="SAME", in_channels=3, out_channels=33
    ),
    "a kernel longer than the input": ConvGeometry(
        (3, 2), 7, padding=((3, 3), (0, 6)), in_channels=2, out_channels=31
    ),
    "strides larger than kernels": ConvGeometry(
        (9, 34), (2, 3), strides=(5, 8), padding=((1, 0), (2, 0)), in_channels=17, out_channels=15
    ),
    "strides larger than the input": ConvGeometry(
        (3, 3), 1, strides=7, in_channels=32, out_channels=8
    ),
    "dilation": ConvGeometry(
        (9, 33), 3, dilations=(2, 5), padding="SAME", in_channels=15, out_channels=21
    ),
    "dilation and strides": ConvGeometry(
        (9, 33), 3, dilations=(3, 2), strides=(2, 3), padding=2, in_channels=4, out_channels=17
    ),
    "cropped": ConvGeometry(
        (9, 33), 3, padding=((-2, -3), (-1, 4)), in_channels=3, out_channels=16
    ),
    "cropped and strided": ConvGeometry(
        (9, 33), 2, strides=3, padding=((-4, 0), (-3, -3)), in_channels=3, out_channels=16
    ),
    "groups": ConvGeometry((4, 15), 3, padding=1, groups=3, in_channels=15, out_channels=51),
    "depthwise": ConvGeometry((4, 29), 3, padding=1, groups=33, in_channels=33, out_channels=33),
    "a channel multiplier": ConvGeometry(
        (4, 17), 3, strides=2, padding=1, groups=7, in_channels=7, out_channels=21
    ),
    "FCN-8s": ConvGeometry((24, 40), 16, strides=8, padding="SAME", in_channels=3, out_channels=3),
    "one axis": ConvGeometry((65,), 5, strides=2, padding="SAME", in_channels=5, out_channels=33),
    "three axes": ConvGeometry(
        (2, 3, 15), 3, strides=(1, 2, 1), padding=1, in_channels=5, out_channels=17
    ),
}


#: With the product: a tile takes all panels of a kernel before the next tile does, but of one that
#: is too large; see blocks.FAR_APART.
APART = {
    "many channels": ("forward", ConvGeometry((3, 7), 1, in_channels=5, out_channels=531)),
    "groups": (
        "forward",
        ConvGeometry((4, 9), 3, padding=1, groups=3, in_channels=6, out_channels=525),
    ),
    "a large kernel": ("forward", ConvGeometry((1, 13), 1, in_channels=1050, out_channels=1050)),
    "phases": (
        "transpose",
        ConvGeometry((64, 230), 64, strides=32, padding=16, in_channels=17, out_channels=3),
    ),
    "results outside": (
        "transpose",
        ConvGeometry((9, 39), 7, strides=(3, 8), padding="SAME", in_channels=70, out_channels=5),
    ),
}


@pytest.mark.parametrize("name", APART)
def test_results_far_apart(backend, name):
    product, geometry = APART[name]
    for parts in ((), ("scale", "bias", "residual")):
        trial = functools.partial(Trial, product, geometry, parts=parts, backend=backend)
        for dtype in ("float32", "float64", "int32"):
            trial(dtype=dtype, batch=2, out="C", algorithm="direct").check()


@every_product
@pytest.mark.parametrize("name", WINDOWS)
def test_windows(backend, product, name):
    for dtype, batch in itertools.product(("float32", "float64", "float16", "int32"), (1, 3)):
        Trial(product, WINDOWS[name], dtype=dtype, batch=batch, out="C", backend=backend).check()


#: How the operands of a kernel gradient are cut up: channels into strips, sums into parts.
CUT = {
    "strips of both operands": ConvGeometry((3, 8), 1, in_channels=130, out_channels=70),
    "strips in steps": ConvGeometry(
        (9, 11), 3, strides=(2, 3), dilations=2, padding="SAME", in_channels=66, out_channels=65
    ),
    "strips of groups": ConvGeometry(
        (2, 9), (1, 2), padding=1, groups=2, in_channels=134, out_channels=132
    ),
    "rows cut into chunks": ConvGeometry(1100, 2, padding=1, in_channels=64, out_channels=65),
    "long rows of few channels": ConvGeometry(2100, 3, dilations=3, in_channels=2, out_channels=9),
    "parts": ConvGeometry((150, 130), 3, padding=1, in_channels=3, out_channels=25),
    "parts of strips": ConvGeometry((80, 62), 1, in_channels=64, out_channels=66),
    "parts of taps": ConvGeometry((520, 510), 3, padding=1),
    "long rows of taps": ConvGeometry((2, 2500), (1, 4), padding=(0, 2), out_channels=2),
}


@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("dtype, batch", [("float32", 1), ("int32", 3)])
def test_cuts_of_a_kernel_gradient(backend, name, dtype, batch):
    """They are the same on any number of threads."""
    trial = functools.partial(
        Trial, "kernel_gradient", CUT[name], batch=batch, dtype=dtype, out="C", backend=backend
    )
    results = []
    try:
        for threads in (1, 3):
            set_num_threads(threads)
            results.append(trial().check())
    finally:
        set_num_threads(None)
    np.testing.assert_array_equal(*results)


@every_product
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int16"])
def test_layouts_change_no_bit(backend, product, layout, dtype):
    """Unaligned, not contiguous, byte-swapped, and likewise where the result goes."""
    geometry = ConvGeometry(
        (4, 15), 3, strides=(1, 2), padding="SAME", in_channels=17, out_channels=5
    )
    parts = () if product == "kernel_gradient" else ("scale", "bias", "residual")
    trial = functools.partial(
        Trial, product, geometry, dtype=dtype, parts=parts, backend=backend, algorithm="direct"
    )
    plain = trial(out="C").check()
    out = "C" if layout == "swapped" else layout
    there = trial(source_layout=layout, operand_layout=layout, out=out).check()
    np.testing.assert_array_equal(there, plain)


@pytest.mark.skipif(os.name != "posix", reason="needs mprotect")
@pytest.mark.parametrize("side", ["high", "low"])
def test_nothing_beside_an_array_is_touched(backend, side):
    """Not even read and thrown away: there may be no memory beside it."""
    code = f"""
        import test_tile_edges
        test_tile_edges.beside_a_fence({backend!r}, {side!r})
    """
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(__file__)}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, f"{done.stdout.splitlines()[-1:]} {done.stderr}"


def beside_a_fence(backend, side):
    """Call every product with all arrays flush against a page that may not be touched."""
    rng = np.random.default_rng(0)
    for geometry, dtype, product in itertools.product(
        WINDOWS.values(), ("float32", "float64", "float16", "int32"), PRODUCTS
    ):
        print(f"{product} of {geometry} in {dtype}, fence on the {side} side", flush=True)
        x, kernel, y = (
            fenced(random_array(rng, shape, dtype), side)
            for shape in (
                (2, *geometry.input_shape),
                geometry.kernel_shape,
                (2, *geometry.output_shape),
            )
        )
        options = window(geometry) | {"backend": backend}
        call, result = {
            "forward": (functools.partial(conv, x, kernel), y),
            "transpose": (
                functools.partial(conv_transpose, y, kernel, output_size=geometry.input_size),
                x,
            ),
            "kernel_gradient": (
                functools.partial(conv_kernel_gradient, x, y, geometry.kernel_size),
                kernel,
            ),
        }[product]
        if product != "kernel_gradient":
            bias = fenced(random_array(rng, result.shape[-1:], dtype), side)
            options |= {"bias": bias, "residual": fenced(result, side)}
        out = fenced(np.zeros_like(result), side)
        call(**options, out=out)
        np.testing.assert_array_equal(out, call(**options))


@every_product
def test_a_broadcast_operand(backend, product):
    """Strides of zero: one row stands for all."""
    rng = np.random.default_rng(0)
    shape = (2, 4, 9, 3)
    x = np.broadcast_to(random_array(rng, (1, 1, 9, 3), "float32"), shape)
    g = np.broadcast_to(random_array(rng, (3,), "float32"), shape)
    kernel = np.broadcast_to(random_array(rng, (3, 1, 1), "float32"), (3, 3, 3, 3))
    call = {
        "forward": lambda x, kernel, g: conv(x, kernel, padding=1, backend=backend),
        "transpose": lambda x, kernel, g: conv_transpose(g, kernel, padding=1, backend=backend),
        "kernel_gradient": lambda x, kernel, g: conv_kernel_gradient(
            x, g, 3, padding=1, backend=backend
        ),
    }[product]
    expected = call(*(np.ascontiguousarray(each) for each in (x, kernel, g)))
    np.testing.assert_array_equal(call(x, kernel, g), expected)


@every_product
@pytest.mark.parametrize(
    ("size", "batch"), [((0, 5), 1), ((5, 0), 2), ((0, 0), 1), ((2, 2), 1), ((9, 15), 0)]
)
@pytest.mark.parametrize("padding", ["VALID", "SAME", ((2, 2), (0, 0))])
def test_zero_size_arrays(backend, product, size, batch, padding):
    geometry = ConvGeometry(size, 3, strides=2, padding=padding, in_channels=5, out_channels=16)
    parts = () if product == "kernel_gradient" else ("bias", "residual")
    for dtype, out in itertools.product(("float32", "int8"), (None, "C")):
        Trial(
            product, geometry, batch=batch, dtype=dtype, parts=parts, out=out, backend=backend
        ).check()


def tile_of(draw, geometry, size):
    """Draw the first and one past the last index of a tile, an axis."""
    tile = []
    for length in size:
        start = draw(st.integers(0, length - 1))
        tile.append((start, draw(st.integers(start + 1, length))))
    return tile


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@some_examples
@given(
    geometry=tile_geometries(max_products=100_000),
    structure=st.sampled_from(["random", "random", "bilinear", "separable"]),
    data=st.data(),
)
def test_forward_tiles_equal_the_whole(backend, dtype, geometry, structure, data):
    """With the inputs that its windows read, a tile of the output has the same bits."""
    assume(0 not in geometry.output_size)
    rng = np.random.default_rng(0)
    x = random_array(rng, (1, *geometry.input_shape), dtype)
    kernel = structured_kernel(rng, geometry, dtype, structure)
    options = window(geometry) | {"algorithm": "direct", "backend": backend}
    whole = conv(x, kernel, **options)
    tile = tile_of(data.draw, geometry, geometry.output_size)
    halo, padding = [], []
    for axis, (first, last) in enumerate(tile):
        stride, size = geometry.strides[axis], geometry.input_size[axis]
        start = first * stride - geometry.padding[axis][0]
        stop = start + (last - 1 - first) * stride + geometry.effective_kernel_size[axis]
        inside = [min(max(end, 0), size) for end in (start, stop)]
        halo.append(slice(*inside))
        padding.append((inside[0] - start, stop - inside[1]))
    part = conv(x[:, *halo], kernel, **{**options, "padding": padding})
    np.testing.assert_array_equal(part, whole[:, *(slice(*ends) for ends in tile)])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@some_examples
@given(
    geometry=tile_geometries(max_products=100_000),
    structure=st.sampled_from(["random", "random", "bilinear", "separable"]),
    data=st.data(),
)
def test_transposed_tiles_equal_the_whole(backend, dtype, geometry, structure, data):
    """Likewise for a tile of the transposed convolution's output."""
    assume(0 not in geometry.input_size + geometry.output_size)
    rng = np.random.default_rng(0)
    y = random_array(rng, (1, *geometry.output_shape), dtype)
    kernel = structured_kernel(rng, geometry, dtype, structure)
    options = window(geometry) | {"algorithm": "direct", "backend": backend}
    whole = conv_transpose(y, kernel, output_size=geometry.input_size, **options)
    tile = tile_of(data.draw, geometry, geometry.input_size)
    halo, padding = [], []
    for axis, (first, last) in enumerate(tile):
        stride, span = geometry.strides[axis], geometry.effective_kernel_size[axis]
        low = geometry.padding[axis][0]
        start = max(0, -((span - 1 - low - first) // stride))  # the first that reaches the tile
        stop = min(geometry.output_size[axis], (last - 1 + low) // stride + 1)
        assume(start < stop)
        low += first - start * stride
        halo.append(slice(start, stop))
        padding.append((low, (stop - start - 1) * stride + span - (last - first) - low))
    options |= {"padding": padding, "output_size": [last - first for first, last in tile]}
    part = conv_transpose(y[:, *halo], kernel, **options)
    np.testing.assert_array_equal(part, whole[:, *(slice(*ends) for ends in tile)])
