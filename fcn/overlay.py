"""Predictions as pictures: class ids in a palette, in colours, and over the photograph."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .files import replacing
from .legend import PAPER, Entry, legend, text_size
from .palette import Classes

if TYPE_CHECKING:
    import PIL.Image

#: How much of a class's colour lies over the photograph, and on its border.
OPACITY, BORDER = 0.5, 0.95
#: The class that is not drawn.
NOTHING = "background"
#: Rows drawn at a time, so that what is made of them in between stays small.
STRIP = 256
#: The most classes in a legend; what is left of the share is summed up.
LONGEST_LEGEND = 24


def palette_picture(ids: np.ndarray, classes: Classes) -> PIL.Image.Image:
    """Return class ids ``(h, w)`` in uint8 as a palette picture: its pixels are the ids."""
    import PIL.Image

    picture = PIL.Image.fromarray(ids)
    picture.putpalette(classes.table().tobytes())
    return picture


def save_ids(path: Path, ids: np.ndarray, classes: Classes) -> None:
    """Write class ids as a palette PNG, as Pascal VOC's masks are; whole or not at all."""
    with replacing(path) as beside:
        palette_picture(ids, classes).save(beside, "PNG")


def save_coloured(path: Path, ids: np.ndarray, classes: Classes) -> None:
    """Write class ids in their colours as an RGB PNG; whole or not at all."""
    with replacing(path) as beside:
        palette_picture(ids, classes).convert("RGB").save(beside, "PNG")


def save_overlay(
    path: Path, photograph: PIL.Image.Image, ids: np.ndarray, classes: Classes
) -> None:
    """Write the classes over the photograph, and a legend with their shares below it.

    Where nothing was found (a class named background, void) the photograph shows as it is.

    Parameters
    ----------
    path : Path
        A PNG; it appears whole or not at all.
    photograph : PIL.Image.Image
        In mode ``"RGB"``.
    ids : ndarray
        ``(h, w)``, uint8, of the photograph's size.
    classes : Classes
    """
    import PIL.Image

    longest = max(photograph.size)
    below = legend(_entries(ids, classes), photograph.width, text_size(longest))
    canvas = PIL.Image.new("RGB", (below.width, photograph.height + below.height), PAPER)
    for rows, strip in _strips(photograph, ids, classes, max(1, longest // 600)):
        canvas.paste(PIL.Image.fromarray(strip), (0, rows.start))
    canvas.paste(below, (0, photograph.height))
    with replacing(path) as beside:
        canvas.save(beside, "PNG")


def shares(ids: np.ndarray, classes: Classes) -> list[tuple[int, float]]:
    """Return ``(class, share of the pixels)``, the greatest first.

    >>> shares(np.array([[1, 1, 1, 0]], np.uint8), Classes.of(["background", "cat"]))
    [(1, 0.75), (0, 0.25)]
    """
    counts = np.zeros(256, np.int64)
    for row in range(0, len(ids), STRIP):
        counts += np.bincount(ids[row : row + STRIP].ravel(), minlength=256)
    there = [c for c in range(len(classes)) if counts[c]]
    return sorted(((c, float(counts[c] / ids.size)) for c in there), key=lambda s: (-s[1], s[0]))


def drawn_over(pixels: np.ndarray, ids: np.ndarray, classes: Classes, width: int = 1) -> np.ndarray:
    """Return a photograph with the classes' colours over it, and their borders.

    Parameters
    ----------
    pixels : ndarray
        ``(h, w, 3)``, RGB, uint8.
    ids : ndarray
        ``(h, w)``, uint8.
    classes : Classes
    width : int
        Of a border, on each side of it, in pixels.
    """
    out = np.empty_like(pixels)
    for rows, strip in _strips(pixels, ids, classes, width):
        out[rows] = strip
    return out


def _strips(
    pixels: np.ndarray | PIL.Image.Image, ids: np.ndarray, classes: Classes, width: int
) -> Iterator[tuple[slice, np.ndarray]]:
    colours = classes.table().astype(np.float32)
    opacity = np.zeros(256, np.float32)
    opacity[: len(classes)] = [0 if name == NOTHING else OPACITY for name in classes.names]
    for top in range(0, len(ids), STRIP):
        rows = slice(top, min(top + STRIP, len(ids)))
        if isinstance(pixels, np.ndarray):
            below = pixels[rows]
        else:
            below = np.asarray(pixels.crop((0, rows.start, pixels.width, rows.stop)))
        here = ids[rows]
        alpha = opacity[here]
        alpha[_border(ids, rows, width) & (alpha > 0)] = BORDER
        alpha = alpha[..., None]
        yield rows, (below * (1 - alpha) + colours[here] * alpha + 0.5).astype(np.uint8)


def _border(ids: np.ndarray, rows: slice, width: int) -> np.ndarray:
    """Return which pixels of some rows lie within `width` of another class, along an axis."""
    margin = slice(max(0, rows.start - width), min(len(ids), rows.stop + width))
    around = ids[margin]
    border = np.zeros(around.shape, bool)
    for step in range(1, width + 1):
        down = around[step:] != around[:-step]
        border[step:] |= down
        border[:-step] |= down
        right = around[:, step:] != around[:, :-step]
        border[:, step:] |= right
        border[:, :-step] |= right
    return border[rows.start - margin.start :][: rows.stop - rows.start]


def _entries(ids: np.ndarray, classes: Classes) -> list[Entry]:
    """Return the legend's colours and texts; no colour where none is drawn, and for the rest."""
    found = shares(ids, classes)
    shown = found if len(found) <= LONGEST_LEGEND else found[: LONGEST_LEGEND - 1]
    entries: list[Entry] = [
        (
            None if classes.names[c] == NOTHING else tuple(classes.colours[c].tolist()),
            f"{classes.names[c]}  {percent(share)}",
        )
        for c, share in shown
    ]
    if len(shown) < len(found):
        rest = sum(share for _, share in found[len(shown) :])
        entries.append((None, f"{len(found) - len(shown)} more  {percent(rest)}"))
    return entries or [(None, "void alone")]


def percent(share: float) -> str:
    """Return a share as text.

    >>> percent(0.3149), percent(0.002), percent(1)
    ('31 %', '< 1 %', '100 %')
    """
    number = f"{100 * share:.0f}"
    return f"{number} %" if number != "0" else "< 1 %"
