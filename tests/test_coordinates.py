"""Coordinate maps: published receptive fields, FCN's constants, and brute force."""

import dataclasses
import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from convarith import ConvGeometry, conv, conv_transpose
from convarith.coordinates import CoordinateMap, Window

THREE = Window(3, padding=1)
POOL = Window(2, strides=2, ceil_mode=True)  # Caffe's


def vgg16(padding=1):
    """Return VGG16's layers up to pool5, conv1_1 padded by `padding`."""
    first = Window(3, padding=padding)
    blocks = (2, 2, 3, 3, 3)
    layers = [layer for convolutions in blocks for layer in [THREE] * convolutions + [POOL]]
    return [first, *layers[1:]]


def up(stride):
    """Return FCN's upsampling, a transposed convolution of k = 2s."""
    return Window(2 * stride, strides=stride, transposed=True)


FC6 = Window(7)
#: The paper's networks, whose first convolution is padded by 100.
POOL3, POOL4, POOL5 = (CoordinateMap(vgg16(100)[:n]) for n in (10, 14, 18))
SCORE = POOL5.then(FC6, Window(1), Window(1))


def test_crop_of_fcn32s():
    """Crop 19: the upsampled score's entry 19 lies over the image's first pixel."""
    assert SCORE.then(up(32)).alignment() == (19,)


def test_crops_of_fcn16s():
    """Crop pool4's score by 5, the upsampled fusion by 27."""
    twice = SCORE.then(up(2))
    assert POOL4.alignment(twice) == (5,)
    assert twice.then(up(16)).alignment() == (27,)


def test_crops_of_fcn8s():
    """Crop pool4's score by 5, pool3's by 9, the upsampled fusion by 31."""
    fused = SCORE.then(up(2), up(2))
    assert POOL3.alignment(fused) == (9,)
    assert fused.then(up(8)).alignment() == (31,)


def test_pad_100_is_the_round_number_above_what_the_smallest_image_needs():
    """97 gives even one pixel an output through fc6; and then the output covers the image."""
    (least,) = CoordinateMap([*vgg16(), FC6]).minimal_padding()
    assert least == 97
    for padding in (least, 100):
        net = CoordinateMap([*vgg16(padding), FC6, up(32)])
        (crop,) = net.alignment()
        assert crop >= 0 and all(net.output_size(i)[0] >= i + crop for i in range(1, 700))
    assert SCORE.minimal_padding() == (97,) and SCORE.minimal_padding(100) == (48,)
    net = CoordinateMap([*vgg16(80), FC6])
    assert net.then(up(32)).alignment() == (-1,)  # the first pixel has no score
    assert net.output_size(1) == (0,)


@pytest.mark.parametrize(
    ("layers", "receptive_field", "jump"),
    [
        (vgg16()[:2], 5, 1),  # conv1_2
        (vgg16()[:9], 40, 4),  # conv3_3
        (vgg16()[:13], 92, 8),  # conv4_3
        (vgg16()[:17], 196, 16),  # conv5_3
        (vgg16()[:18], 212, 32),  # pool5
        ([*vgg16(), FC6], 404, 32),  # fc6
    ],
)
def test_vgg16_as_published(layers, receptive_field, jump):
    net = CoordinateMap(layers)
    assert (net.receptive_field, net.jump) == ((receptive_field,), (jump,))


def resnet(units, *, strides_last):
    """Return the longest path: 7x7/2, 3x3/2 pooling, then a 3x3 a unit, strided in one of each."""
    layers = [Window(7, strides=2, padding=3), Window(3, strides=2, padding=1)]
    for block, count in enumerate(units):
        strides = [1] * count
        if strides_last and block < 3:
            strides[-1] = 2
        if not strides_last and block > 0:
            strides[0] = 2
        layers += [Window(3, strides=s, padding=1) for s in strides]
    return CoordinateMap(layers)


@pytest.mark.parametrize(
    ("units", "receptive_field"),
    [((3, 4, 6, 3), 483), ((3, 4, 23, 3), 1027), ((3, 8, 36, 3), 1507)],
    ids=["resnet50", "resnet101", "resnet152"],
)
def test_resnet_v1_as_published(units, receptive_field):
    """Araujo, Norris & Sim's table, of the networks that stride in the last unit of a block."""
    net = resnet(units, strides_last=True)
    assert (net.receptive_field, net.jump) == ((receptive_field,), (32,))


def test_resnet50_that_strides_first():
    assert resnet((3, 4, 6, 3), strides_last=False).receptive_field == (427,)


amounts = st.tuples(st.tuples(st.integers(-2, 2), st.integers(-2, 2)))
windows = st.builds(
    Window,
    kernel_size=st.integers(1, 4),
    strides=st.integers(1, 3),
    dilations=st.integers(1, 2),
    padding=amounts,
    transposed=st.booleans(),
)


def run(layers, x):
    """Apply layers whose weights are 1 to ``(n, i)``."""
    y = x[..., None]
    for layer in layers:
        kernel = np.ones((layer.kernel_size, 1, 1))
        options = {name: getattr(layer, name) for name in ("strides", "dilations", "padding")}
        if not layer.transposed:
            y = conv(y, kernel, **options)
        elif CoordinateMap([layer]).output_size(y.shape[1]) == (0,):
            y = y[:, :0]  # conv_transpose refuses to crop more than there is
        else:
            y = conv_transpose(y, kernel, **options)
    return y[..., 0]


@given(st.lists(windows, min_size=1, max_size=4), st.integers(1, 14))
def test_against_brute_force(layers, size):
    """Which inputs move an output: none outside of the interval, and its ends where within."""
    net = CoordinateMap(layers)
    moved = run(layers, np.eye(size))  # [i, o]: input i's weight in output o
    assert net.output_size(size) == moved.shape[1:]
    for o in range(moved.shape[1]):
        ((start, stop),) = net.inputs(o, o + 1)
        read = np.flatnonzero(moved[:, o])
        assert all(start <= i < stop for i in read)
        assert stop - start <= net.receptive_field[0]


@st.composite
def windows_without_gaps(draw):
    strides = draw(st.integers(1, 3))
    return Window(
        strides + draw(st.integers(0, 3)),
        strides=strides,
        padding=draw(amounts),
        transposed=draw(st.booleans()),
    )


@given(st.lists(windows_without_gaps(), min_size=1, max_size=3))
def test_the_ends_are_read(layers):
    """Away from the border, without gaps, an interval is no wider than what is read."""
    net, size = CoordinateMap(layers), 120
    moved = run(layers, np.eye(size))
    for o in range(moved.shape[1]):
        ((start, stop),) = net.inputs(o, o + 1)
        if 30 < start and stop < size - 30:
            read = np.flatnonzero(moved[:, o])
            assert (start, stop) == (read[0], read[-1] + 1)


@given(st.lists(windows, min_size=1, max_size=4))
def test_convolutions_alone_are_exact_with_any_gaps(layers):
    layers = [dataclasses.replace(layer, transposed=False) for layer in layers]
    net, size = CoordinateMap(layers), 200
    moved = run(layers, np.eye(size))
    for o in range(moved.shape[1]):
        ((start, stop),) = net.inputs(o, o + 1)
        if 30 < start and stop < size - 30:
            read = np.flatnonzero(moved[:, o])
            assert (start, stop) == (read[0], read[-1] + 1)
            assert stop - start == net.receptive_field[0]


def test_what_is_read_of_nothing_has_a_place():
    """A window between the entries of a transposed layer reads nothing, at its own place."""
    net = CoordinateMap([Window(2, strides=2), Window(1, strides=3, transposed=True)])
    ((start, stop),) = net.inputs(100, 101)
    assert start == stop and abs(start - 100 * net.jump[0]) < 4
    assert net.inputs(99, 100) == ((66, 68),)
    assert CoordinateMap([Window(2, strides=2)]).inputs(5, 5) == ((10, 10),)


@given(st.lists(windows, min_size=1, max_size=4), st.data())
def test_a_tile_with_its_halo_gives_the_bits_of_the_whole(layers, data):
    net, size = CoordinateMap(layers), 150
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, size))
    whole = run(layers, x)[0]
    (period, step), ((before, after),), (jump,) = net.period[0], net.halo, net.jump
    a = data.draw(st.integers(0, max(0, len(whole) - 1)))
    b = data.draw(st.integers(a, min(len(whole), a + 10)))
    first = int(np.floor(float(a * jump))) - before
    first -= first % step  # the layers' phases
    last = int(np.ceil(float(b * jump))) + after
    assume(a < b)
    for index in range(len(layers)):  # what is read lies within each layer: nothing is padding
        ((start, stop),) = CoordinateMap(layers[index:]).inputs(a, b)
        assume(start >= 0 and stop <= CoordinateMap(layers[:index]).output_size(size)[0])
    assume(first >= 0 and last <= size)
    tile = run(layers, x[:, first:last])[0]
    shift = first // step * period
    np.testing.assert_array_equal(tile[a - shift : b - shift], whole[a:b])


def test_offset_is_the_middle_of_what_is_read():
    net = CoordinateMap([Window(3, strides=2, padding=1), Window(5, strides=3, dilations=2)])
    ((start, stop),) = net.inputs(0, 1)
    assert net.offset == (Fraction(start + stop - 1, 2),) and net.jump == (6,)
    ((start, stop),) = net.inputs(7, 8)
    assert Fraction(start + stop - 1, 2) == 7 * net.jump[0] + net.offset[0]


def test_geometries_are_layers():
    g = ConvGeometry((9, 8), (3, 2), strides=(2, 3), padding=((1, 0), (2, 2)), dilations=(1, 2))
    net = CoordinateMap([g, g.adjoint])
    assert net.jump == (1, 1) and net.rank == 2
    assert net.output_size(g.input_size) == g.input_size
    assert CoordinateMap([g]).output_size(g.input_size) == g.output_size


def test_mixed_axes():
    net = CoordinateMap([Window((3, 1), padding=((1, 1), (0, 0))), Window(2, strides=2)])
    assert net.receptive_field == (4, 2) and net.output_size(8) == (4, 4)
    assert CoordinateMap().receptive_field == (1,) and CoordinateMap().alignment() == (0,)


def test_ceil_mode_as_torch_has_it(torch):
    agreed = 0
    for size, k, s, p, d in itertools.product(
        range(1, 12), range(1, 5), range(1, 5), range(3), range(1, 4)
    ):
        net = CoordinateMap([Window(k, strides=s, padding=p, dilations=d, ceil_mode=True)])
        try:
            x = torch.zeros(1, 1, size)
            theirs = torch.nn.functional.max_pool1d(x, k, s, p, d, ceil_mode=True).shape[-1]
        except RuntimeError as error:  # for it, padding is at most half the kernel
            assert "pad" in str(error) or net.output_size(size) == (0,)
            continue
        assert net.output_size(size) == (theirs,)
        agreed += 1
    assert agreed > 500


def test_minimal_padding_of_each_axis():
    net = CoordinateMap([Window((3, 1)), Window((9, 4), strides=(1, 2))])
    assert net.minimal_padding() == (5, 2) and net.minimal_padding((6, 3)) == (3, 1)
    assert net.minimal_padding((11, 4)) == (0, 0)
    for sizes in ((1, 1), (6, 3)):
        (height, width) = net.minimal_padding(sizes)
        for less in ((height - 1, width), (height, width - 1)):
            layer = Window((3, 1), padding=tuple((p, p) for p in less))
            assert 0 in CoordinateMap([layer, net.layers[1]]).output_size(sizes)
    with pytest.raises(ValueError, match=r"layers\[0\]: expected one that pads"):
        CoordinateMap([Window(3, transposed=True), Window(9)]).minimal_padding()


def test_windows_compare_by_their_numbers():
    assert Window([3, 3]) == Window((3, 3)) and hash(Window(np.array([3, 3]))) == hash(
        Window((3, 3))
    )
    with pytest.raises(TypeError, match="transposed: expected a bool, got 'no'"):
        Window(3, transposed="no")


def test_huge_sizes_and_what_is_refused():
    far = CoordinateMap([Window(2**40, strides=2**62)])
    assert far.inputs(2**62, 2**62 + 1)[0][0] == 2**124
    with pytest.raises(ValueError, match=r"layers: .* repeats within 262144 outputs"):
        CoordinateMap([Window(3, strides=2**62, transposed=True)]).receptive_field  # noqa: B018
    with pytest.raises(ValueError, match="padding: expected numbers, got 'SAME'"):
        Window(3, padding="SAME")
    with pytest.raises(ValueError, match="ceil_mode: expected False"):
        Window(3, transposed=True, ceil_mode=True)
    with pytest.raises(ValueError, match="layers: expected as many axes"):
        CoordinateMap([Window((3, 3)), Window((3, 3, 3))])
    with pytest.raises(TypeError, match="layers: expected an iterable"):
        CoordinateMap(Window(3))
    with pytest.raises(TypeError, match="other: expected a CoordinateMap"):
        CoordinateMap().alignment(3)
    with pytest.raises(TypeError, match=r"layers\[0\]: expected a Window"):
        CoordinateMap([3])
    with pytest.raises(ValueError, match=r"other: expected jumps of \('2',\), got \('1',\)"):
        CoordinateMap([Window(2, strides=2)]).alignment()
    with pytest.raises(ValueError, match=r"stop\[0\]: expected at least start"):
        CoordinateMap([THREE]).inputs(3, 2)
