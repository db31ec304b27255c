"""Class ids of a picture of any size: as a whole, or by tiles so that memory stays bounded.

`whole`, `exact_tiles` and `averaged_tiles` are three ways to the logits of a picture. Each yields
parts that together cover every pixel once, and `class_ids` takes the largest logit of each pixel.
`segment` chooses among them.

A network halves its input several times, which leaves nothing over only where height and width
are multiples of its stride. So a picture is padded to such on the right and at the bottom, by
zeros once it is normalised: what lies beyond its edges for the convolutions too. What the network
says of the padding is cut off.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from convarith import argmax_channels

from .receptive import halo

if TYPE_CHECKING:
    import PIL.Image

    Picture = np.ndarray | PIL.Image.Image

#: Rows, columns, and the logits ``(h, w, classes)`` of the pixels there.
Part = tuple[slice, slice, Any]
#: An amount along the height and along the width.
Pair = tuple[int, int]

#: Pictures of more pixels than this are segmented by exact tiles, if nothing is said.
LARGE = 2**21
#: The side of what such a tile's network sees, unless its halo leaves too little of it.
SIGHT, LEAST_TILE = 1280, 512


class Network(Protocol):
    """What is asked of a model here."""

    stride: int
    graph: Any

    def preprocess(self, image: np.ndarray) -> np.ndarray:
        """Map ``(h, w, 3)`` RGB in uint8 to what the network takes, float32."""

    def logits(self, x: np.ndarray) -> Any:
        """Map ``(n, h, w, c)`` to ``(n, h, w, classes)``."""


def check_pixelwise(model: Network, name: str) -> None:
    """Refuse a network that does not give each pixel of an RGB picture its logits.

    Parameters
    ----------
    model : Model
    name : str
        What the error begins with.

    Raises
    ------
    ValueError
    """
    channels, side = model.graph.channels, 4 * model.stride
    if channels != 3:
        raise ValueError(f"{name}: expected a network of 3 channels, got one of {channels}")
    result = model.graph.shapes((1, side, side, channels))[model.graph.output]
    if result[1:3] != (side, side):
        raise ValueError(
            f"{name}: expected a result of the input's size, got {result[1]} x {result[2]} for "
            f"{side} x {side} pixels"
        )


def whole(model: Network, picture: Picture) -> Iterator[Part]:
    """Yield one part, the picture seen at once.

    Parameters
    ----------
    model : Model
    picture : ndarray or PIL.Image.Image
        ``(h, w, 3)``, RGB, uint8, or an image in mode ``"RGB"``.
    """
    height, width = _size(picture)
    yield slice(0, height), slice(0, width), _see(model, picture, (0, 0), (height, width))


def exact_tiles(model: Network, picture: Picture, tile: Pair, around: Pair) -> Iterator[Part]:
    """Yield the logits by tiles that equal the whole picture's.

    Each tile is seen with the halo that its pixels depend on, so nothing is changed by where it
    was cut out: the same bits with ``algorithm="direct"``, whose sums do not depend on the place,
    and up to rounding with Winograd, which computes by small tiles of its own.

    Parameters
    ----------
    model : Model
    picture : ndarray or PIL.Image.Image
        As in `whole`.
    tile : (int, int)
        Height and width of a part; rounded up to multiples of the model's stride.
    around : (int, int)
        Its halo: pixels before and after a tile that it depends on, along both axes: see
        `fcn.receptive.halo`.
    """
    before, after = (_rounded(pixels, model.stride) for pixels in around)
    axes = []
    for n, side in zip(_size(picture), _checked_tile(tile), strict=True):
        # Cut on the grid of the stride, a window's layers are in the same phase as the whole's.
        padded, side = _rounded(n, model.stride), _rounded(side, model.stride)
        window = min(padded, side + before + after)
        # At the edges windows are moved inwards, not made smaller: all of them are alike, and
        # the network is planned for one size.
        axes.append(
            [
                (start, min(start + side, n), min(max(0, start - before), padded - window), window)
                for start in range(0, n, side)
            ]
        )
    for (top, bottom, y, height), (left, right, x, width) in itertools.product(*axes):
        seen = _see(model, picture, (y, x), (height, width))
        rows, columns = slice(top, bottom), slice(left, right)
        yield rows, columns, seen[top - y : bottom - y, left - x : right - x]


def averaged_tiles(
    model: Network, picture: Picture, tile: Pair, overlap: Pair | None = None
) -> Iterator[Part]:
    """Yield the logits by overlapping tiles, averaged where they overlap, before any softmax.

    Nothing beyond a tile is seen, so the result is not the whole picture's: it is what a network
    says that only ever saw pictures of the tile's size. The tiles' union is the picture, and they
    are evenly spread. Sums are kept only until the last tile over them has come.

    Parameters
    ----------
    model : Model
    picture : ndarray or PIL.Image.Image
        As in `whole`.
    tile : (int, int)
        Height and width, rounded up to multiples of the model's stride. A picture that is smaller
        is one tile.
    overlap : (int, int), optional
        The least that neighbours share, below the tile; default: a quarter of the tile.
    """
    sides = tuple(_rounded(side, model.stride) for side in _checked_tile(tile))
    shared = tuple(side // 4 for side in sides) if overlap is None else tuple(overlap)
    if len(shared) != 2 or not all(0 <= o < side for o, side in zip(shared, sides, strict=True)):
        raise ValueError(f"overlap: expected at least 0 and less than {sides}, got {overlap}")
    size = _size(picture)
    rows, columns = (_cells(*axis) for axis in zip(size, sides, shared, strict=True))
    sums: dict[Pair, Any] = {}
    for (top, down), (left, across) in itertools.product(rows.items(), columns.items()):
        height, width = (min(n, side) for n, side in zip(size, sides, strict=True))
        seen = _see(model, picture, (top, left), (height, width))
        for (y, y_tiles), (x, x_tiles) in itertools.product(down, across):
            logits = seen[y.start - top : y.stop - top, x.start - left : x.stop - left]
            place, tiles = (y.start, x.start), len(y_tiles) * len(x_tiles)
            if tiles > 1:
                logits = logits + sums[place] if place in sums else logits.copy()
                sums[place] = logits
            if (top, left) == (y_tiles[-1], x_tiles[-1]):
                sums.pop(place, None)
                yield y, x, logits / np.float32(tiles) if tiles > 1 else logits


def class_ids(
    parts: Iterable[Part], size: Pair, advance: Callable[[int], Any] | None = None
) -> np.ndarray:
    """Return the class with the largest logit at every pixel, ``(h, w)`` in uint8.

    Parameters
    ----------
    parts : iterable of (slice, slice, ndarray)
        Of at most 256 classes.
    size : (int, int)
        Height and width.
    advance : callable, optional
        Called with the number of pixels that are new, for a progress bar.
    """
    ids = np.empty(size, np.uint8)
    for rows, columns, logits in parts:
        if logits.shape[-1] > 256:
            raise ValueError(f"logits: expected at most 256 classes, got {logits.shape[-1]}")
        ids[rows, columns] = _on_host(argmax_channels(logits))
        if advance is not None:
            advance((rows.stop - rows.start) * (columns.stop - columns.start))
    return ids


def segment(
    model: Network,
    picture: Picture,
    tile: Pair | None = None,
    *,
    exact: bool = False,
    advance: Callable[[int], Any] | None = None,
) -> np.ndarray:
    """Return the class of every pixel, ``(h, w)`` in uint8.

    Parameters
    ----------
    model : Model
    picture : ndarray or PIL.Image.Image
        As in `whole`.
    tile : (int, int), optional
        Without it the picture is seen at once, or by `exact_tiles` if it has more than `LARGE`
        pixels.
    exact : bool
        Whether tiles of this size are exact; they are averaged else.
    advance : callable, optional
        See `class_ids`.
    """
    height, width = size = _size(picture)
    if tile is None and height * width <= LARGE:
        parts = whole(model, picture)
    elif tile is not None and not exact:
        parts = averaged_tiles(model, picture, tile)
    else:
        around = halo(model.graph)
        if tile is None:
            tile = (max(LEAST_TILE, SIGHT - sum(around)),) * 2
        parts = exact_tiles(model, picture, tile, around)
    return class_ids(parts, size, advance)


def _see(model: Network, picture: Picture, start: Pair, size: Pair) -> Any:
    """Return the logits ``(h, w, classes)`` of a window, that may reach beyond the picture."""
    (top, left), (height, width) = start, size
    bottom, right = (min(a + b, n) for a, b, n in zip(start, size, _size(picture), strict=True))
    if isinstance(picture, np.ndarray):
        pixels = picture[top:bottom, left:right]
    else:
        pixels = np.asarray(picture.crop((left, top, right, bottom)))
    values = model.preprocess(pixels)
    x = np.zeros(
        (1, _rounded(height, model.stride), _rounded(width, model.stride), values.shape[-1]),
        np.float32,
    )
    x[0, : bottom - top, : right - left] = values
    program = getattr(model, "program", None)  # which says where its arrays are
    logits = model.logits(x if program is None else program.xp.asarray(x))
    if logits.shape[1:3] != x.shape[1:3]:
        raise ValueError(
            f"model: expected logits of the input's size {x.shape[1:3]}, got {logits.shape[1:3]}"
        )
    return logits[0, :height, :width]


def _cells(n: int, tile: int, overlap: int) -> dict[int, list[tuple[slice, list[int]]]]:
    """Return where tiles begin along an axis, each with its cells: where no tile begins or ends.

    With every cell come the tiles over it, in order.

    >>> _cells(10, 6, 1)
    {0: [(slice(0, 4, None), [0]), (slice(4, 6, None), [0, 4])],
     4: [(slice(4, 6, None), [0, 4]), (slice(6, 10, None), [4])]}
    """
    tile = min(tile, n)
    more = -(-(n - tile) // (tile - min(overlap, tile - 1)))
    starts = [round(i * (n - tile) / more) for i in range(more)] + [n - tile]
    edges = sorted({*starts, *(start + tile for start in starts)})
    cells = [
        (slice(a, b), [start for start in starts if start <= a and b <= start + tile])
        for a, b in itertools.pairwise(edges)
    ]
    return {start: [cell for cell in cells if start in cell[1]] for start in starts}


def _checked_tile(tile: Pair) -> Pair:
    sides = tuple(tile)
    if len(sides) != 2 or not all(isinstance(n, int | np.integer) and n > 0 for n in sides):
        raise ValueError(f"tile: expected (height, width) of at least 1, got {tile!r}")
    return sides


def _size(picture: Picture) -> Pair:
    if not isinstance(picture, np.ndarray):
        if picture.mode != "RGB":
            raise ValueError(f"picture: expected mode RGB, got {picture.mode}")
        return picture.height, picture.width
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise ValueError(
            f"picture: expected uint8 of shape (h, w, 3), got {picture.dtype} of {picture.shape}"
        )
    return picture.shape[0], picture.shape[1]


def _rounded(n: int, multiple: int) -> int:
    """Return `n` rounded up to a multiple."""
    return -(-n // multiple) * multiple


def _on_host(array: Any) -> np.ndarray:
    return array if isinstance(array, np.ndarray) else array.get()
