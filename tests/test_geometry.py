"""`ConvGeometry` against brute force: every pair that the index law joins, one by one."""

import itertools
import pickle
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convarith import ConvGeometry
from convarith.axis import Axis, floor_sum
from convarith.testing import geometries

axes = st.builds(
    Axis,
    size=st.integers(0, 12),
    kernel=st.integers(1, 6),
    stride=st.integers(1, 6),
    dilation=st.integers(1, 5),
    low=st.integers(-6, 8),
    high=st.integers(-6, 8),
)


def windows(axis):
    """Yield ``(o, k, i)`` for every window that lies within the padded input."""
    for o in itertools.count():
        if o * axis.stride + (axis.kernel - 1) * axis.dilation >= axis.size + axis.low + axis.high:
            return
        for k in range(axis.kernel):
            yield o, k, o * axis.stride + k * axis.dilation - axis.low


@given(axes)
def test_an_axis_by_brute_force(axis):
    reads = list(windows(axis))
    inside = [(o, k, i) for o, k, i in reads if 0 <= i < axis.size]
    assert axis.output == len({o for o, _, _ in reads})
    assert axis.nnz == len(inside)
    assert axis.unread == axis.size - 1 - max(
        (min(i, axis.size - 1) for _, _, i in reads if i >= 0), default=-1
    )
    if axis.output:
        positions = [i for _, _, i in reads]
        assert axis.full == max(positions) - min(positions) + 1


@given(axes)
def test_taps_and_runs_by_brute_force(axis):
    inside = {(o, k): i for o, k, i in windows(axis) if 0 <= i < axis.size}
    found = {}
    for tap in axis.taps():
        outputs = range(axis.output)[tap.outputs]
        inputs = range(axis.size)[tap.inputs]
        found |= {(o, tap.k): i for o, i in zip(outputs, inputs, strict=True)}
    assert found == inside
    runs = list(axis.runs(0, axis.output))
    assert [o for run in runs for o in range(run.start, run.stop)] == list(range(axis.output))
    for run in runs:
        for o in range(run.start, run.stop):
            taps = [k for k in range(axis.kernel) if (o, k) in inside]
            assert taps == list(range(run.first, run.last))


@given(axes, st.sampled_from(["SAME", "SAME_LOWER"]))
def test_same_padding(axis, word):
    geometry = ConvGeometry(
        axis.size, axis.kernel, strides=axis.stride, dilations=axis.dilation, padding=word
    )
    assert geometry.output_size == (-(-axis.size // axis.stride),)
    ((low, high),) = geometry.padding
    assert (low - high if word == "SAME_LOWER" else high - low) in (0, 1)
    if axis.size and low + high:  # no less would do
        less = ConvGeometry(
            axis.size,
            axis.kernel,
            strides=axis.stride,
            dilations=axis.dilation,
            padding=[(low + high - 1, 0)],
        )
        assert less.output_size < geometry.output_size


@given(
    st.integers(0, 6),
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(1, 3),
    st.sampled_from(["SAME", "SAME_LOWER", "VALID", "EXPLICIT"]),
    st.tuples(st.integers(-3, 5), st.integers(-3, 5)),
)
def test_the_transpose_accepts_what_the_convolution_gives(o, k, s, d, padding, amounts):
    """Exactly the sizes whose convolution has the output asked for, and the right default."""
    padding = [amounts] if padding == "EXPLICIT" else padding
    options = {"strides": s, "dilations": d, "padding": padding}
    sizes = [i for i in range(80) if ConvGeometry(i, k, **options).output_size == (o,)]
    accepted = []
    for i in range(80):
        try:
            geometry = ConvGeometry.of_transpose(o, k, output_size=i, **options)
        except ValueError as error:
            if str(error).startswith("padding"):  # it crops every size away
                assert not sizes
            else:
                assert "output_size[0]: expected" in str(error) and f"got {i}" in str(error)
        else:
            assert geometry.input_size == (i,)
            accepted.append(i)
    assert accepted == sizes or (o == 0 and not sizes and accepted == [0])
    default = ((k - 1) * d + 1) + s * (o - 1) - (0 if isinstance(padding, str) else sum(amounts))
    if padding in ("SAME", "SAME_LOWER"):
        default = o * s
    elif o == 0:
        default = max(0, default)
    if default < 0:
        with pytest.raises(ValueError, match="padding"):
            ConvGeometry.of_transpose(o, k, **options)
    else:
        geometry = ConvGeometry.of_transpose(o, k, **options)
        assert geometry.input_size == (default,)


@given(geometries())
def test_input_sizes(geometry):
    arguments = {name: getattr(geometry, name) for name in ("strides", "dilations", "padding")}
    sizes = ConvGeometry.input_sizes(geometry.output_size, geometry.kernel_size, **arguments)
    for axis, found in enumerate(sizes):
        expected = []
        for i in range(60):
            size = list(geometry.input_size)
            size[axis] = i
            other = ConvGeometry(size, geometry.kernel_size, **arguments)
            if other.output_size[axis] == geometry.output_size[axis]:
                expected.append(i)
        assert list(found) == expected


@pytest.mark.parametrize("word", ["SAME", "SAME_LOWER", "VALID"])
def test_input_sizes_of_words(word):
    for k, s, d, o in itertools.product(range(1, 5), range(1, 4), range(1, 3), range(4)):
        options = {"strides": s, "dilations": d, "padding": word}
        expected = [i for i in range(40) if ConvGeometry(i, k, **options).output_size == (o,)]
        assert list(ConvGeometry.input_sizes(o, k, **options)[0]) == expected


def test_no_size_has_an_empty_output_where_the_padding_covers_the_kernel():
    assert ConvGeometry.input_sizes(0, 3, padding=2) == (range(0, 0),)
    assert ConvGeometry.input_sizes(2**62, 3, strides=2**40, padding=2**30)[0].start > 2**100


def test_transposed_paddings():
    """All of them, by counting: each leads to the size, and none is missing."""
    cases = itertools.product(range(1, 4), range(1, 4), range(9), range(1, 4), range(1, 4))
    for i, k, out, s, d in cases:
        (found,) = ConvGeometry.transposed_paddings(i, k, out, strides=s, dilations=d)
        full = s * (i - 1) + (k - 1) * d + 1
        expected = {
            (extra, (low, high))
            for extra in range(max(s, d))
            for low in range(30)
            for high in range(30)
            if full - low - high + extra == out
        }
        found = list(found)
        assert set(found) == expected and len(found) == len(expected)
        for extra, (low, high) in found:
            geometry = ConvGeometry.of_transpose(
                i, k, strides=s, dilations=d, padding=[(low, high - extra)]
            )
            assert geometry.input_size == (out,) and geometry.output_size == (i,)


def test_transposed_paddings_of_huge_sizes_begin_at_once():
    (found,) = ConvGeometry.transposed_paddings(2**62, 2**40, 2**61, strides=2)
    assert next(found)[1][0] > 2**61


@given(geometries())
def test_adjoint(geometry):
    adjoint = geometry.adjoint
    assert adjoint.transposed and not geometry.transposed
    assert adjoint != geometry and adjoint.adjoint == geometry
    assert hash(adjoint.adjoint) == hash(geometry) and adjoint.convolution == geometry
    assert (adjoint.input_shape, adjoint.output_shape) == (
        geometry.output_shape,
        geometry.input_shape,
    )
    assert adjoint.matrix_shape == geometry.matrix_shape[::-1]
    assert (adjoint.nnz, adjoint.kernel_shape) == (geometry.nnz, geometry.kernel_shape)
    assert eval(repr(adjoint), {"ConvGeometry": ConvGeometry}) == adjoint
    assert pickle.loads(pickle.dumps(adjoint)) == adjoint
    for (low, high), axis in zip(geometry.crops, geometry.axes, strict=True):
        full = axis.stride * (axis.output - 1) + axis.effective_kernel
        assert (low, full - low - high) == (axis.low, axis.size)


def test_the_adjoint_explains_itself():
    text = ConvGeometry(5, 3, strides=2, padding=1, in_channels=2).adjoint.explain()
    assert text.startswith("the transpose (3,) -> (5,) of the convolution whose axes are\naxis 0: ")
    assert "channels: 1 -> 2" in text and "W^T: 10 x 3" in text


@given(geometries(ranks=(1,)), geometries(ranks=(1,)))
def test_alignment_shift(a, b):
    """It is the distance between the middles of what the same output reads."""
    if a.strides != b.strides:
        with pytest.raises(ValueError, match="other: expected strides"):
            a.alignment_shift(b)
        return
    middles = []
    for geometry in (a, b):
        (axis,) = geometry.axes
        read = [7 * axis.stride + k * axis.dilation - axis.low for k in range(axis.kernel)]
        middles.append(Fraction(sum(read), len(read)))
    assert a.alignment_shift(b) == (middles[1] - middles[0],)
    assert b.adjoint.alignment_shift(a.adjoint) == (middles[0] - middles[1],)
    with pytest.raises(ValueError, match="other: expected .* transposed=False"):
        a.alignment_shift(b.adjoint)
    with pytest.raises(TypeError, match="other: expected a ConvGeometry"):
        a.alignment_shift(3)


@given(geometries())
def test_equal_geometries_print_and_hash_alike(geometry):
    again = eval(repr(geometry), {"ConvGeometry": ConvGeometry})
    assert again == geometry
    assert hash(again) == hash(geometry)
    assert "\n" not in repr(geometry)
    assert ConvGeometry((5, 5), 3, padding="SAME") == ConvGeometry([5, 5], (3, 3), padding=1)


def test_long_kernels_cost_what_reaches_the_input():
    """Of 2**60 taps those are looked at that lie on one of five inputs."""
    geometry = ConvGeometry(5, 2**60, padding=[(2**60 - 3, 0)])
    assert geometry.output_size == (3,) and geometry.nnz == sum((3, 4, 5))
    assert [tap.k for (tap,) in geometry.taps()] == list(range(2**60 - 5, 2**60))
    assert len(list(ConvGeometry(2, 2**60).taps())) == 0
    (axis,) = geometry.axes
    assert [run.last - run.first for run in axis.runs(0, 3)] == [3, 4, 5]


def test_frozen():
    with pytest.raises(AttributeError):
        ConvGeometry(5, 3).strides = (2,)


@given(st.integers(0, 40), st.integers(1, 30), st.integers(0, 60), st.integers(0, 60))
def test_floor_sum(n, m, a, b):
    assert floor_sum(n, m, a, b) == sum((a * i + b) // m for i in range(n))


def test_sizes_have_no_bound():
    geometry = ConvGeometry((2**62, 2**62), 2**40, strides=3, dilations=7, padding=2**50)
    assert geometry.output_size == ((2**62 + 2**51 - (2**40 - 1) * 7 - 1) // 3 + 1,) * 2
    assert geometry.index_bits == 64
    # Far from the borders every window reads every tap: all but a sliver of 2**50 outputs do.
    full = geometry.output_size[0] * 2**40
    assert full * (1 - 2**-10) < geometry.axes[0].nnz < full
    assert geometry.nnz == geometry.axes[0].nnz ** 2


@given(geometries(ranks=(1, 2)))
def test_explain_puts_the_numbers_in(geometry):
    text = geometry.explain()
    lines = text.splitlines()
    assert repr(text) == str(text)
    for number, axis in enumerate(geometry.axes):
        assert any(line.startswith(f"axis {number}: i = {axis.size}, ") for line in lines)
        assert any(f"= {axis.effective_kernel}" in line for line in lines)
    outputs = [line for line in lines if line.strip().startswith("output")]
    for axis, line in zip(geometry.axes, outputs, strict=True):
        assert line.endswith(f"= {axis.output}") or (axis.output == 0 and "o = 0" in line)
    assert f"{geometry.nnz} entries, {geometry.matrix_nbytes(8)} bytes" in lines[-1]
    # The arithmetic is arithmetic: every "x = y" of numbers holds.
    for line in outputs:
        if "floor(" in line:
            _, _, numbers = line.partition("floor(")[2].partition(" = floor(")
            expression, _, value = numbers.partition(" = ")
            assert eval("(" + expression.replace("/", "//")) == int(value)


@given(geometries())
def test_the_transposes_sizes(geometry):
    """`cropped_size` is what the transpose gives by itself, `full_size` what it crops."""
    plain = ConvGeometry.of_transpose(
        geometry.output_size,
        geometry.kernel_size,
        strides=geometry.strides,
        dilations=geometry.dilations,
    )
    assert geometry.full_size == plain.input_size
    crops = [sum(padding) for padding in geometry.padding]
    cropped = [full - crop for full, crop in zip(geometry.full_size, crops, strict=True)]
    if min(cropped) >= 0 and 0 not in geometry.output_size:
        transposed = ConvGeometry.of_transpose(
            geometry.output_size,
            geometry.kernel_size,
            strides=geometry.strides,
            dilations=geometry.dilations,
            padding=geometry.padding,
        )
        assert geometry.cropped_size == transposed.input_size == tuple(cropped)
