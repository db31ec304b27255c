"""Pictures beside what there is to find and what was found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .files import replacing
from .legend import INK, PAPER, Entry, font, legend, text_size
from .overlay import palette_picture
from .palette import VOID, Classes

#: The width of each picture in a panel, and what lies between them.
WIDTH, GAP = 400, 8
HEADINGS = ("picture", "label", "prediction")

#: A picture ``(h, w, 3)``, and ``(h, w)`` of class ids labelled and found, all uint8.
Row = tuple[np.ndarray, np.ndarray, np.ndarray]


def save_panel(path: Path, rows: Sequence[Row], classes: Classes) -> None:
    """Write rows of picture | label | prediction in the classes' colours, and a legend.

    Parameters
    ----------
    path : Path
        The suffix names the format; the file appears whole or not at all.
    rows : sequence of (ndarray, ndarray, ndarray)
        At least one.
    classes : Classes
    """
    import PIL.Image
    import PIL.ImageDraw

    size = text_size(3 * WIDTH) // 2 * 2
    pictures = []
    for photograph, *maps in rows:
        height, width = photograph.shape[:2]
        fitting = (WIDTH, max(1, min(2 * WIDTH, round(height * WIDTH / width))))
        coloured = [palette_picture(ids, classes).convert("RGB") for ids in maps]
        # Classes have no colours between them.
        kinds = [PIL.Image.Resampling.LANCZOS, *[PIL.Image.Resampling.NEAREST] * 2]
        pictures.append(
            [
                picture.resize(fitting, kind)
                for picture, kind in zip(
                    [PIL.Image.fromarray(photograph), *coloured], kinds, strict=True
                )
            ]
        )
    total = len(HEADINGS) * (WIDTH + GAP) + GAP
    below = legend(_entries(rows, classes), total, size)
    top = 2 * size
    height = top + sum(row[0].height + GAP for row in pictures)
    canvas = PIL.Image.new("RGB", (max(total, below.width), height + below.height), PAPER)
    draw = PIL.ImageDraw.Draw(canvas)
    for column, heading in enumerate(HEADINGS):
        left = GAP + column * (WIDTH + GAP)
        draw.text((left + WIDTH // 2, size), heading, fill=INK, font=font(size), anchor="mm")
        at = top
        for row in pictures:
            canvas.paste(row[column], (left, at))
            at += row[column].height + GAP
    canvas.paste(below, (0, height))
    with replacing(path) as beside:
        canvas.save(beside)


def _entries(rows: Sequence[Row], classes: Classes) -> list[Entry]:
    """Return what the maps hold, in the order of the ids, void last."""
    there = np.zeros(256, np.int64)
    for _, *maps in rows:
        for ids in maps:
            there += np.bincount(ids.ravel(), minlength=256)
    entries: list[Entry] = [
        (tuple(classes.colours[c].tolist()), name)
        for c, name in enumerate(classes.names)
        if there[c]
    ]
    return entries + ([(tuple(classes.void_colour), "void")] if there[VOID] else [])
