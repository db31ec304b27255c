"""Text in pictures: which colour is which class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import PIL.Image
    import PIL.ImageFont

#: A colour, or None for a swatch that is left open, and what it stands for.
Entry = tuple[tuple[int, ...] | None, str]

INK, OUTLINE, PAPER = (32, 32, 32), (96, 96, 96), (255, 255, 255)


def text_size(longest_side: int) -> int:
    """Return how large text is beside a picture with that longest side, in pixels."""
    return min(max(13, longest_side // 45), 160)


def font(size: int) -> PIL.ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which matplotlib brings and which has most alphabets."""
    import matplotlib
    import PIL.ImageFont

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return PIL.ImageFont.truetype(str(path), size)


def printable(text: str) -> str:
    """Return a text on one line, as far as it can be written.

    >>> printable("a\\nb"), printable("")
    ('a b', '?')
    """
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split()) or "?"


def legend(entries: Sequence[Entry], width: int, size: int) -> PIL.Image.Image:
    """Return a strip of swatches with their texts, in columns.

    Parameters
    ----------
    entries : sequence of (colour, text)
        At least one; they are set down the columns.
    width : int
        Of the picture it is for. The strip is wider where the longest text needs it.
    size : int
        Of the text, in pixels.
    """
    import PIL.Image
    import PIL.ImageDraw

    letters = font(size)
    texts = [printable(text) for _, text in entries]
    column = 3 * size + max(round(letters.getlength(text)) for text in texts)
    width = max(width, column + size)
    columns = min(len(entries), (width - size) // column)
    lines = -(-len(entries) // columns)
    pitch = round(1.6 * size)
    strip = PIL.Image.new("RGB", (width, lines * pitch + size // 2), PAPER)
    draw = PIL.ImageDraw.Draw(strip)
    for place, ((colour, _), text) in enumerate(zip(entries, texts, strict=True)):
        left = size // 2 + place // lines * column
        middle = size // 4 + place % lines * pitch + pitch // 2
        box = (left, middle - size // 2, left + round(1.4 * size), middle + size // 2)
        draw.rectangle(box, fill=colour, outline=OUTLINE, width=max(1, size // 16))
        draw.text((left + 2 * size, middle), text, fill=INK, font=letters, anchor="lm")
    return strip
