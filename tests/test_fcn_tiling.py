"""Tiles of any size give what the whole picture gives, in memory that the tile bounds."""

import tracemalloc

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convarith import CoordinateMap, Window, conv, conv_transpose
from fcn import tiling

sides = st.integers(1, 90)
tiles = st.tuples(st.integers(1, 50), st.integers(1, 50))
seeds = st.integers(0, 2**32 - 1)


class Network:
    """Two halvings and an upsampling by four; only its algorithm can be told."""

    stride, graph = 4, object()

    def __init__(self, algorithm=None, classes=5):
        rng = np.random.default_rng(0)
        self.algorithm = algorithm

        def kernel(*shape):
            return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[:3]))).astype(np.float32)

        c = 16  # which Winograd takes on every machine
        self.first, self.full, self.middle = (kernel(3, 3, inner, c) for inner in (3, c, c))
        self.down1, self.down2 = kernel(3, 3, c, c), kernel(5, 5, c, c)
        self.up = kernel(8, 8, classes, c)
        self.bias = rng.standard_normal(c).astype(np.float32)

    def preprocess(self, image):
        return image.astype(np.float32) / 128 - 1

    def logits(self, x):
        assert x.dtype == np.float32 and x.shape[1] % 4 == x.shape[2] % 4 == 0
        same = {"padding": "SAME", "bias": self.bias, "activation": "relu"}
        x = conv(x, self.first, algorithm="direct", **same)
        x = conv(x, self.full, algorithm=self.algorithm, **same)
        x = conv(x, self.down1, strides=2, **same)
        x = conv(x, self.down2, strides=2, **same)
        x = conv(x, self.middle, algorithm=self.algorithm, **same)
        return conv_transpose(x, self.up, strides=4, padding="SAME")

    #: Of sizes that are multiples of the stride.
    HALO = CoordinateMap(
        [
            Window((3, 3), padding=1),
            Window((3, 3), padding=1),
            Window((3, 3), strides=2, padding=((0, 1), (0, 1))),
            Window((5, 5), strides=2, padding=((1, 2), (1, 2))),
            Window((3, 3), padding=1),
            Window((8, 8), strides=4, padding=2, transposed=True),
        ]
    ).halo[0]


class Pixels:
    """Gives the pixels back, and remembers what it was shown."""

    stride = 4

    def __init__(self):
        self.shown = []

    def preprocess(self, image):
        return image.astype(np.float32)

    def logits(self, x):
        self.shown.append(x)
        return x


def picture(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def collected(parts, size):
    """Return the logits of all parts, and check that they cover every pixel once."""
    logits, times = None, np.zeros(size, int)
    for rows, columns, part in parts:
        if logits is None:
            logits = np.full((*size, part.shape[-1]), np.nan, np.float32)
        times[rows, columns] += 1
        logits[rows, columns] = part
    assert (times == 1).all()
    return logits


@given(size=st.tuples(sides, sides), tile=tiles, seed=seeds)
@settings(max_examples=30)
def test_exact_tiles_are_the_whole_bit_for_bit(size, tile, seed):
    model, image = Network("direct"), picture(size, seed)
    whole = collected(tiling.whole(model, image), size)
    np.testing.assert_array_equal(
        collected(tiling.exact_tiles(model, image, tile, model.HALO), size), whole
    )


@given(size=st.tuples(sides, sides), tile=tiles, seed=seeds)
@settings(max_examples=20)
def test_exact_tiles_are_the_whole_to_rounding_with_winograd(size, tile, seed):
    model, image = Network("winograd"), picture(size, seed)
    whole = collected(tiling.whole(model, image), size)
    tiled = collected(tiling.exact_tiles(model, image, tile, model.HALO), size)
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=2e-5 * np.abs(whole).max())


def test_without_its_halo_a_tile_is_not_the_whole():
    """The property above can fail, on both sides along both axes."""
    size = (64, 72)
    model, image = Network("direct"), picture(size)
    whole = collected(tiling.whole(model, image), size)
    for tile in ((16, 80), (80, 16)):  # cut along one axis
        for side in range(2):
            halo = list(model.HALO)
            assert halo[side] > 4
            halo[side] = 4
            tiled = collected(tiling.exact_tiles(model, image, tile, halo), size)
            assert not np.array_equal(tiled, whole)


def test_windows_are_all_of_one_size():
    """So that a network is planned for one shape a picture."""
    model = Pixels()
    for kind in (
        lambda: tiling.exact_tiles(model, picture((101, 203)), (16, 32), (9, 20)),
        lambda: tiling.averaged_tiles(model, picture((101, 203)), (16, 32)),
    ):
        model.shown.clear()
        collected(kind(), (101, 203))
        assert len(model.shown) > 20 and len({x.shape for x in model.shown}) == 1


def test_a_picture_is_padded_with_what_normalises_to_zero():
    model = Pixels()
    image = picture((5, 7))
    collected(tiling.whole(model, image), (5, 7))
    (x,) = model.shown
    assert x.shape == (1, 8, 8, 3)
    np.testing.assert_array_equal(x[0, :5, :7], image)
    assert not x[0, 5:].any() and not x[0, :, 7:].any()


@given(
    size=st.tuples(sides, sides),
    tile=tiles,
    share=st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)) | st.none(),
)
@settings(max_examples=50)
def test_averaged_tiles(size, tile, share):
    """Against sums over all tiles; where a tile was is read off what the network was shown."""

    class Offset(Pixels):
        def logits(self, x):
            super().logits(x)
            return x + np.float32(10 * len(self.shown))  # as no two tiles agree

    model = Offset()
    image = np.zeros((*size, 3), np.uint8)
    image[..., 0], image[..., 1] = np.ogrid[: size[0], : size[1]]
    image[..., 2] = 1
    sides = tuple(-(-side // 4) * 4 for side in tile)
    overlap = share and tuple(int(s * side) for s, side in zip(share, sides, strict=True))
    averaged = collected(tiling.averaged_tiles(model, image, tile, overlap), size)

    sums, times = np.zeros((*size, 3)), np.zeros((*size, 1))
    starts = (set(), set())
    for number, x in enumerate(model.shown, 1):
        top, left = (int(x[0, 0, 0, axis]) for axis in range(2))
        starts[0].add(top)
        starts[1].add(left)
        there = int(x[0, :, 0, 2].sum()), int(x[0, 0, :, 2].sum())
        assert there == tuple(min(n, side) for n, side in zip(size, sides, strict=True))
        window = slice(top, top + there[0]), slice(left, left + there[1])
        sums[window] += x[0, : there[0], : there[1]] + 10 * number
        times[window] += 1
    np.testing.assert_allclose(averaged, sums / times, rtol=1e-5)
    for axis, side in enumerate(sides):
        shared = overlap[axis] if overlap else side // 4
        steps = np.diff(sorted(starts[axis]))
        assert (steps <= side - shared).all()
        assert len(steps) == 0 or np.ptp(steps) <= 1


def test_logits_are_averaged_not_classes():
    """One tile is sure of class 1, two lean to class 0: the sum decides."""
    image = np.zeros((4, 12, 3), np.uint8)

    class Opinions:
        stride, seen = 4, 0

        def preprocess(self, image):
            return image.astype(np.float32)

        def logits(self, x):
            self.seen += 1
            return np.broadcast_to(
                np.float32([0, 5] if self.seen == 2 else [1, 0]), (*x.shape[:3], 2)
            )

    parts = tiling.averaged_tiles(Opinions(), image, (4, 8), (0, 6))
    ids = tiling.class_ids(parts, (4, 12))
    assert ids[0].tolist() == [0, 0] + [1] * 8 + [0, 0]


@pytest.mark.parametrize("kind", ["exact", "averaged"])
def test_memory_is_the_tiles(kind):
    """A picture of 16 million pixels: what is held besides it is its ids and a few tiles."""
    size = (4000, 4000)
    image = np.zeros((*size, 3), np.uint8)
    model = Pixels()
    model.logits = lambda x: np.concatenate([x] * 4, axis=-1)  # 12 classes
    tracemalloc.start()
    try:
        if kind == "exact":
            parts = tiling.exact_tiles(model, image, (256, 256), (32, 32))
        else:
            parts = tiling.averaged_tiles(model, image, (256, 256))
        tiling.class_ids(parts, size)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    tile = 320 * 320 * (3 + 12) * 4
    band = 64 * 4000 * 12 * 4 if kind == "averaged" else 0  # what waits for the tiles below
    assert peak < 4000 * 4000 + 1.2 * band + 3 * tile < 60e6


def test_a_picture_of_pillow_is_as_good():
    size = (50, 61)
    model, image = Network(), picture(size)
    pillow = PIL.Image.fromarray(image)
    for kind in (
        lambda image: tiling.whole(model, image),
        lambda image: tiling.averaged_tiles(model, image, (24, 32)),
        lambda image: tiling.exact_tiles(model, image, (24, 32), model.HALO),
    ):
        np.testing.assert_array_equal(collected(kind(pillow), size), collected(kind(image), size))


def test_what_is_chosen(monkeypatch):
    """Whole pictures; large ones by exact tiles; a tile given by averages, or exact."""
    called, advanced = [], []
    for name in ("whole", "averaged_tiles", "exact_tiles"):
        original = getattr(tiling, name)
        monkeypatch.setattr(
            tiling,
            name,
            lambda *args, name=name, original=original: called.append(name) or original(*args),
        )
    model, image = Network(), picture((60, 40))
    monkeypatch.setattr(tiling, "halo", lambda graph: model.HALO if graph is model.graph else 0)
    for arguments in ({}, {"exact": True}, {"tile": (16, 16)}, {"tile": (16, 16), "exact": True}):
        advanced.clear()
        ids = tiling.segment(model, image, **arguments, advance=advanced.append)
        assert ids.shape == (60, 40) and ids.dtype == np.uint8 and sum(advanced) == 2400
    assert called == ["whole", "whole", "averaged_tiles", "exact_tiles"]
    whole = tiling.segment(model, image)
    monkeypatch.setattr(tiling, "LARGE", 2399)
    monkeypatch.setattr(tiling, "SIGHT", 44)
    monkeypatch.setattr(tiling, "LEAST_TILE", 8)
    called.clear()
    np.testing.assert_array_equal(tiling.segment(model, image), whole)
    assert called == ["exact_tiles"] and len(advanced) > 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (((4, 4, 3), np.float32, (8, 8), None), "picture: expected uint8"),
        (((4, 4), np.uint8, (8, 8), None), "picture: expected uint8"),
        (((0, 4, 3), np.uint8, (8, 8), None), "picture: expected uint8"),
        (((4, 4, 3), np.uint8, (0, 8), None), "tile: expected"),
        (((4, 4, 3), np.uint8, (8,), None), "tile: expected"),
        (((4, 4, 3), np.uint8, (8.0, 8), None), "tile: expected"),
        (((4, 4, 3), np.uint8, (8, 8), (8, 0)), "overlap: expected at least 0 and less than"),
        (((4, 4, 3), np.uint8, (8, 8), (-1, 0)), "overlap: expected"),
    ],
)
def test_what_is_refused(arguments, problem):
    shape, dtype, tile, overlap = arguments
    with pytest.raises(ValueError, match=f"^{problem}"):
        list(tiling.averaged_tiles(Pixels(), np.zeros(shape, dtype), tile, overlap))


def test_a_grey_picture_is_refused():
    with pytest.raises(ValueError, match="^picture: expected mode RGB, got L"):
        tiling.segment(Pixels(), PIL.Image.new("L", (4, 4)))


def test_more_classes_than_ids():
    parts = [(slice(0, 1), slice(0, 1), np.zeros((1, 1, 257), np.float32))]
    with pytest.raises(ValueError, match="^logits: expected at most 256 classes, got 257"):
        tiling.class_ids(parts, (1, 1))
