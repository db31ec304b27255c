"""What may change no bit of a result: tiles, segments, the batch, groups, the image around it."""

import numpy as np
import pytest

from convarith import ConvGeometry
from convarith.backends.cuda.specialisations import GRADIENT_TILES, MAP_TILES

from .aimed import deep_channels, geometry, of_kernel
from .problems import Problem, assert_same_bits

#: Of the tiled kernels one element each: what a tile does is the same for all.
DTYPES = {"map_ffma": "float32", "map_mma": "float16"}
#: A map of every kernel, forward, with more than one group.
MAPS = {
    "map_plain": Problem("forward", geometry((5, 9), 3, (2, 3, 5)), dtype="float64"),
    "map_few": Problem("forward", geometry((6, 20), 3, (2, 3, 3))),
    "map_ffma": Problem("forward", geometry((6, 9), (3, 2), (2, 35, 37))),
    "map_mma": Problem("forward", geometry((6, 9), (3, 2), (2, 35, 37)), dtype="float16"),
    "depthwise": Problem("forward", geometry((6, 13), 3, (8, 1, 1)), kernel="depthwise"),
    "depthwise_strip": Problem("forward", geometry((14, 13), 3, (8, 1, 1))),
}


@pytest.mark.parametrize("kernel", MAP_TILES)
def test_a_maps_tile(device, monkeypatch, kernel):
    # Two segments, the second of them short; more results than the largest tile has.
    channels = deep_channels(kernel, 4 if kernel == "map_ffma" else 8)
    of = geometry((19, 15), 3, (1, channels, 41), padding="SAME")
    problem = Problem("forward", of, dtype=DTYPES[kernel], batch=1)
    results = []
    device.multiprocessors = 1
    for tile in MAP_TILES[kernel]:
        with monkeypatch.context() as patch:
            patch.setitem(MAP_TILES, kernel, (tile,))
            results.append(problem.run(device))
        assert device.ran(kernel, TILE_M=tile.m, TILE_N=tile.n, SEGMENTS=1)
        assert_same_bits(results[-1], results[0])
    problem.check(results[0])


@pytest.mark.parametrize(("kernel", "dtype"), [("gradient_ffma", "float32")])
def test_a_gradients_tile(device, monkeypatch, kernel, dtype):
    # As many blocks as parts are cut for, so that tiles change their number of pixels in nothing.
    problem = Problem("kernel_gradient", geometry((9, 11), 3, (1, 19, 70)), dtype=dtype, batch=1)
    results = []
    for tile in GRADIENT_TILES[kernel]:
        with monkeypatch.context() as patch:
            patch.setitem(GRADIENT_TILES, kernel, (tile, tile))
            results.append(problem.run(device))
        assert device.ran(kernel, TILE=tile.size)
        assert_same_bits(results[-1], results[0])
    problem.check(results[0])


@pytest.mark.parametrize(
    "aimed", of_kernel("map_ffma", SEGMENTS=1) + of_kernel("map_mma", SEGMENTS=1), ids=str
)
def test_segments_apart_or_in_one_block(device, aimed):
    results = []
    (kernel,) = {"map_ffma", "map_mma"} & set(aimed.kernels)
    parts = ("scale", "bias", "residual")
    problem = aimed.problem.changed(parts=parts, activation="relu6")
    for multiprocessors, segments in ((1, 1), (64, 2)):
        device.multiprocessors = multiprocessors
        results.append(problem.run(device))
        assert device.ran(kernel, SEGMENTS=segments)
    assert_same_bits(*results)
    problem.check(results[0])


@pytest.mark.parametrize("kernel", MAPS)
def test_the_batch(device, kernel):
    problem = MAPS[kernel]
    whole = problem.run(device)
    assert device.ran(kernel)
    for image in range(problem.batch):
        alone = {"source": problem.arrays["source"][image : image + 1]}
        assert_same_bits(problem.run(device, arrays=alone)[0], whole[image])


@pytest.mark.parametrize("kernel", MAPS)
def test_the_groups(device, kernel):
    problem = MAPS[kernel]
    of, arrays = problem.geometry, problem.arrays
    whole = problem.run(device)
    assert device.ran(kernel)
    c_in, c_out = of.in_channels // of.groups, of.out_channels // of.groups
    alone = problem.changed(geometry=geometry(of.input_size, of.kernel_size, (1, c_in, c_out)))
    for group in range(of.groups):
        ins, outs = (slice(group * width, (group + 1) * width) for width in (c_in, c_out))
        some = {"source": arrays["source"][..., ins], "operand": arrays["operand"][..., outs]}
        result = alone.run(device, arrays=some)
        assert device.ran("depthwise" if kernel == "depthwise_strip" else kernel)
        assert_same_bits(result, np.ascontiguousarray(whole[..., outs]))


@pytest.mark.parametrize(
    ("kernel", "product"),
    [("depthwise_strip", "forward")]
    + [(k, p) for k in MAPS if k != "depthwise_strip" for p in ("forward", "transpose")],
)
def test_the_image_around(device, kernel, product):
    whole = MAPS[kernel].changed(product=product)
    of = whole.geometry
    of = of_size(of, [2 * length for length in of.input_size])
    whole = whole.changed(geometry=of)
    result = whole.run(device)
    # Of the source all but a few entries at either end, on both axes.
    cut = tuple(slice(2, length - 3) for length in whole.arrays["source"].shape[1:-1])
    source = whole.arrays["source"][:, *cut]
    size = source.shape[1:-1]
    if product == "transpose":
        size = [out + k - 1 for out, k in zip(size, of.kernel_size, strict=True)]
    tile = whole.changed(geometry=of_size(of, size))
    part = tile.run(device, arrays={**whole.arrays, "source": source})
    assert device.ran(kernel)
    # What a transposed product adds at an edge comes from sources beyond it, too.
    edge = [0 if product == "forward" else k - 1 for k in of.kernel_size]
    inside = tuple(slice(e, length - e) for e, length in zip(edge, part.shape[1:-1], strict=True))
    same = tuple(
        slice(2 + e, 2 + length - e) for e, length in zip(edge, part.shape[1:-1], strict=True)
    )
    assert_same_bits(*(np.ascontiguousarray(r) for r in (part[:, *inside], result[:, *same])))


def of_size(of, size):
    """Return a geometry without padding, of another size."""
    return ConvGeometry(
        size,
        of.kernel_size,
        groups=of.groups,
        in_channels=of.in_channels,
        out_channels=of.out_channels,
    )
