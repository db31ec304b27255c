"""The kernel gradient by tiles on the CPU: both arrangements, parts, cut rows, and edges."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import convarith
from convarith import ConvGeometry, conv_kernel_gradient
from convarith.backends.cpu import gradient, vector
from convarith.backends.cpu.gradient import GradientPlan
from convarith.backends.cpu.gradient_tables import parts
from convarith.testing.guards import Guarded

PATHS = [vector.PATHS[name] for name in vector.available()]


@pytest.fixture
def threads():
    """Set the number of threads; the default comes back."""
    yield convarith.set_num_threads
    convarith.set_num_threads(None)


@st.composite
def geometries(draw):
    """Draw few channels on both sides, any taps, strides and padding, in two dimensions."""
    axes = []
    for _ in range(2):
        k, s = draw(st.integers(1, 9)), draw(st.integers(1, 5))
        padding = draw(st.integers(-1, 5)), draw(st.integers(-1, 5))
        axes.append((draw(st.integers(1, 24)), k, s, padding))
    size, kernel, strides, padding = zip(*axes, strict=True)
    channels = st.sampled_from((1, 2, 3, 4, 7, 8, 10, 21, 33))
    return ConvGeometry(
        size, kernel, strides=strides, padding=padding,
        in_channels=draw(channels), out_channels=draw(channels),
    )  # fmt: skip


def arrays(geometry, batch, dtype, seed=0):
    rng = np.random.default_rng(seed)
    shapes = geometry.input_shape, geometry.output_shape
    return [rng.integers(-9, 10, (batch, *shape)).astype(dtype) for shape in shapes]


def by_reference(geometry, x, g):
    return conv_kernel_gradient(
        x, g, geometry.kernel_size, strides=geometry.strides, padding=geometry.padding,
        groups=geometry.groups, backend="reference",
    )  # fmt: skip


def run(plan, x, g):
    out = Guarded(np.zeros(plan.geometry.kernel_shape, x.dtype), guard=Guarded.WRITE)
    plan.run(Guarded(x).array, Guarded(g).array, out.array)
    out.assert_untouched(inside=False)
    return out.array


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
@given(
    geometry=geometries(),
    batch=st.integers(1, 3),
    element=st.sampled_from(vector.ELEMENTS),
    dealt=st.booleans(),
)
def test_whole_numbers_are_exact(path, geometry, batch, element, dealt):
    """Also where the rows of pixels are dealt out, as those of large operands are."""
    assume(0 not in geometry.output_size)
    x, g = arrays(geometry, batch, element.dtype)
    with pytest.MonkeyPatch.context() as patched:
        if dealt:
            patched.setattr(gradient, "LARGE_OPERANDS", 0)
            patched.setattr(gradient, "OPERANDS_A_RESULT", 0)
            patched.setattr(gradient, "CHUNK_PIXELS", 16)
        result = run(GradientPlan(path, element, geometry), x, g)
    np.testing.assert_array_equal(result, by_reference(geometry, x, g))


#: By the name of the arrangement: whether rows and lanes are swapped, and how many parts there are.
ARRANGEMENTS = {
    "upsampled": (True, 1, ConvGeometry(
        (80, 120), 16, strides=8, padding=4, in_channels=21, out_channels=21
    )),
    "pictures": (True, 16, ConvGeometry(
        (300, 602), 4, strides=2, padding=1, in_channels=3, out_channels=3
    )),
    "a long row": (True, 1, ConvGeometry((9001,), 7, padding=3, in_channels=4, out_channels=2)),
    "a long row in parts": (True, 16, ConvGeometry(
        (300_001,), 5, padding=2, in_channels=2, out_channels=2
    )),
    "many filters": (False, 1, ConvGeometry(
        (40, 60), 7, strides=2, padding=3, in_channels=3, out_channels=64
    )),
    "pixels": (False, 1, ConvGeometry((15, 10), 1, in_channels=300, out_channels=21)),
    "pixels in parts": (False, 16, ConvGeometry(
        (80, 119), 1, in_channels=64, out_channels=72
    )),
}  # fmt: skip


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_arrangements(path, name, threads):
    swapped, several, geometry = ARRANGEMENTS[name]
    element = vector.ELEMENTS[0]
    x, g = arrays(geometry, 1, element.dtype)
    results = []
    for count in (1, 2, 3):
        threads(count)
        plan = GradientPlan(path, element, geometry)
        layout = plan.layout(1, count)
        assert (plan.swapped, layout.parts) == (swapped, several)
        results.append(run(plan, x, g))
    # Sums of whole numbers so small are exact in float32.
    np.testing.assert_array_equal(results[0], by_reference(geometry, x, g))
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@settings(max_examples=100)
@given(geometries(), st.integers(1, 3), st.sampled_from(PATHS), st.sampled_from(vector.ELEMENTS))
def test_a_threads_scratch_is_whole_cache_lines(geometry, batch, path, element):
    assume(0 not in geometry.output_size)
    found = []
    for threads in (1, 2, 3):
        layout = GradientPlan(path, element, geometry).layout(batch, threads)
        result = layout.parts * np.prod(geometry.kernel_shape) * element.dtype.itemsize
        found.append((layout.scratch_nbytes - (result if layout.parts > 1 else 0)) / layout.threads)
    assert found[0] % 64 == 0
    assert len(set(found)) == 1


@pytest.mark.parametrize("size, channels, kernel", [
    ((40_000,), (4, 8), 9),
    ((100, 100), (8, 8), 3), ((40, 60), (21, 21), 16),
])  # fmt: skip
def test_many_threads_find_work(size, channels, kernel):
    c_in, c_out = channels
    geometry = ConvGeometry(size, kernel, in_channels=c_in, out_channels=c_out)
    plan = GradientPlan(PATHS[0], vector.ELEMENTS[0], geometry)
    assert plan.swapped
    assert plan.layout(1, 16).threads == 16


@settings(max_examples=100)
@given(geometries())
def test_every_output_of_every_tap_is_in_one_part(geometry):
    axis = geometry.axes[1]
    found = parts(axis, 0, axis.kernel)
    pairs = [
        (part.first + k, o)
        for part in found
        for k in range(part.taps)
        for o in range(*part.outputs)
    ]
    expected = [(k, o) for k in range(axis.kernel) for o in range(*axis.outputs_of(k))]
    assert sorted(pairs) == sorted(expected)
    # Each tap is written before it is added to; what all taps have in common is no edge.
    written = set()
    for part in found:
        taps = set(range(part.first, part.first + part.taps))
        assert taps <= written if part.adds else not taps & written
        written |= taps
    assert written == set(range(axis.kernel))


def test_tables_of_many_taps_stay_short():
    """A window that may leave the array at every tap has as many ends as taps."""
    for size, kernel, channels in (((64, 64), 64, 63), ((3000,), 3000, 8), ((40_000,), 16_000, 1)):
        geometry = ConvGeometry(
            size, kernel, padding=kernel // 2, in_channels=channels, out_channels=channels
        )
        for path in PATHS:
            plan = GradientPlan(path, vector.ELEMENTS[0], geometry)
            assert len(gradient.tables(plan).rows) <= 2**17
