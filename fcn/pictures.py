"""Photographs in, panels out."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .files import check_file, replacing

if TYPE_CHECKING:
    import PIL.Image


#: Formats that Pillow knows and leaves to another program to decode.
ELSEWHERE = frozenset(("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"))
#: The tag and value of a TIFF whose zero is white.
WHITE_IS_ZERO = 262, 0
#: The longer side of each half of a panel.
PANEL_INCHES = 5


class Unreadable(ValueError):
    """A file that is no picture; the message says which and why."""


def load(path: Path, *, turn: bool = True) -> PIL.Image.Image:
    """Return a picture as its file has it, decoded, turned as its EXIF data says.

    Formats in ELSEWHERE are none here.

    Parameters
    ----------
    path : Path
    turn : bool
        False leaves the rows as they are stored: a mask's.

    Raises
    ------
    Unreadable
        For whatever is no whole picture.
    """
    import PIL.Image
    import PIL.ImageOps

    try:
        check_file(path)
    except ValueError as error:
        raise Unreadable(str(error)) from None
    PIL.Image.init()  # only then are all formats known
    formats = sorted(PIL.Image.OPEN.keys() - ELSEWHERE)
    try:
        with warnings.catch_warnings():
            # What Pillow finds odd in a picture that it can read all the same. A picture of the
            # size that a decompression bomb could have is one; far larger ones it refuses.
            warnings.simplefilter("ignore")
            with PIL.Image.open(path, formats=formats) as picture:
                picture.load()
                if turn:
                    PIL.ImageOps.exif_transpose(picture, in_place=True)
    except PIL.UnidentifiedImageError as error:
        raise Unreadable(f"{path}: not a picture") from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow's parsers let out whatever they stumble over
        reason = getattr(error, "strerror", None) or f"not a whole picture: {error!s:.200}"
        raise Unreadable(f"{path}: {reason}") from error
    return picture


def endings() -> set[str]:
    """Return how the names of pictures end, ``".png"`` among them."""
    import PIL.Image

    known = PIL.Image.registered_extensions()  # which has those of formats that are only written
    readable = PIL.Image.OPEN.keys() - ELSEWHERE
    return {ending for ending, name in known.items() if name in readable}


def read(path: Path) -> PIL.Image.Image:
    """Return a picture in RGB of 8 bits, turned as its EXIF data says.

    Transparent pixels are shown over white.

    Raises
    ------
    Unreadable
    """
    import PIL.Image

    picture = load(path)
    if picture.mode == "F":
        raise Unreadable(f"{path}: pixels are floats of unknown range, expected integers")
    if picture.mode.startswith("I"):  # 16 bits, which convert() would clip to 8
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65535:
            raise Unreadable(
                f"{path}: pixels from {values.min()} to {values.max()}, not of 16 bits"
            )
        if picture.mode == "I" and picture.format == "TIFF" and values.max() < 256:
            raise Unreadable(f"{path}: pixels are 32-bit integers of unknown range, below 256")
        if picture.format == "TIFF" and picture.tag_v2.get(WHITE_IS_ZERO[0]) == WHITE_IS_ZERO[1]:
            values = 65535 - values  # which Pillow does for 8 bits alone
        picture = PIL.Image.fromarray((values // 257).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = PIL.Image.new("RGBA", picture.size, "white")
        white.alpha_composite(picture)
        picture = white
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def shrunk(picture: PIL.Image.Image, longest: int) -> PIL.Image.Image:
    """Return the picture with its longer side at most `longest` pixels."""
    import PIL.Image

    factor = longest / max(picture.size)
    if factor >= 1:
        return picture
    size = tuple(max(1, round(side * factor)) for side in picture.size)
    return picture.resize(size, PIL.Image.Resampling.LANCZOS)


def centre_crop(picture: PIL.Image.Image, shorter: int = 256, side: int = 224) -> np.ndarray:
    """Return the middle, ``(side, side, 3)``, as torchvision's ImageNet evaluation crops it."""
    import PIL.Image

    factor = shorter / min(picture.size)
    width, height = (round(length * factor) for length in picture.size)
    picture = picture.resize((width, height), PIL.Image.Resampling.BILINEAR)
    left, top = (width - side) // 2, (height - side) // 2
    return np.asarray(picture.crop((left, top, left + side, top + side)))


def save_heat_panel(
    path: Path, photograph: np.ndarray, heat: np.ndarray, title: str, caption: str
) -> None:
    """Write photograph | heat map over it; the file appears whole or not at all.

    Parameters
    ----------
    path : Path
        The suffix names the format.
    photograph : ndarray
        ``(h, w, 3)``, uint8.
    heat : ndarray
        ``(h, w)`` in 0..1.
    title, caption : str
        Over the photograph and over the heat map.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height, width = heat.shape
    scale = PANEL_INCHES / max(height, width)
    panel_width, panel_height = max(2.5, width * scale), max(2.5, height * scale)
    figure = Figure(figsize=(2 * panel_width + 0.8, panel_height + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.imshow(photograph)
    right.imshow(photograph.mean(axis=2), cmap="gray", vmin=0, vmax=255)
    # As opaque as probable: where the class is not, the photograph shows.
    layer = right.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=0.15 + 0.65 * heat)
    for axes, text in ((left, title), (right, caption)):
        axes.set_title(text.encode("utf-8", "replace").decode("utf-8"), parse_math=False)
        axes.set_axis_off()
    bar = figure.colorbar(layer, ax=right, shrink=0.8, label="probability")
    bar.solids.set_alpha(1)
    with replacing(path) as beside, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(beside, dpi=120)
