"""Names and colours of classes, and what lies between class ids and coloured pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .class_names import class_names
from .files import check_file

#: The class id of pixels that count for nothing, and its colour in Pascal VOC's masks.
VOID = 255
VOID_COLOUR = (224, 224, 192)

VOC_CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "dining table",
    "dog",
    "horse",
    "motorbike",
    "person",
    "potted plant",
    "sheep",
    "sofa",
    "train",
    "tv/monitor",
)


def colormap(count: int = 256) -> np.ndarray:
    """Return Pascal VOC's colours of the ids below `count`, ``(count, 3)`` in uint8.

    Bits 0, 3, 6, ... of the id are red's from the highest on, the next ones green's and blue's,
    as the VOC development kit's ``VOCcolormap`` has it.

    >>> colormap()[[0, 1, 15, 255]].tolist()
    [[0, 0, 0], [128, 0, 0], [192, 128, 128], [224, 224, 192]]
    """
    ids = np.arange(count)[:, None]
    colours = np.zeros((count, 3), np.uint8)
    for bit in range(8):
        colours |= ((ids >> (3 * bit + np.arange(3)) & 1) << (7 - bit)).astype(np.uint8)
    return colours


#: The colours of `VOC_CLASSES`, as ``(r, g, b)``.
VOC_COLORMAP = tuple(tuple(colour) for colour in colormap(len(VOC_CLASSES)).tolist())


@dataclasses.dataclass(frozen=True, eq=False)
class Classes:
    """The classes of a network or of a data set, in the order of their ids.

    Attributes
    ----------
    names : tuple of str
    colours : ndarray
        ``(len(names), 3)``, uint8.
    void_colour : (int, int, int)
        Of pixels that count for nothing.
    coloured : bool
        Whether the colours are the data's own, so that a mask can be read by them, and not
        only made up to draw with.
    """

    names: tuple[str, ...]
    colours: np.ndarray
    void_colour: tuple[int, int, int] = VOID_COLOUR
    coloured: bool = False

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= VOID:
            raise ValueError(f"classes: expected 1 to {VOID}, got {len(self.names)}")
        class_names(self.names)
        colours = [*map(tuple, self.colours.tolist()), tuple(self.void_colour)]
        twice = next((colour for colour in colours if colours.count(colour) > 1), None)
        if twice is not None:
            raise ValueError(f"classes: expected each colour once, got {twice!r} twice")

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of(cls, names: Sequence[str]) -> Classes:
        """Return classes in VOC's colours of their ids.

        Black is a background's: where another named class comes first, they begin behind it, unless
        they are as many as there may be.

        >>> Classes.of(["sky", "road"]).colours.tolist()
        [[128, 0, 0], [0, 128, 0]]
        >>> Classes.of(VOC_CLASSES).coloured
        True
        """
        names = tuple(names)
        black = names[:1] in (("background",), ("class 0",)) or len(names) == VOID
        first = 0 if black else 1
        colours = colormap()[first : first + len(names)]
        return cls(names, colours, coloured=names == VOC_CLASSES)

    @classmethod
    def read(cls, path: Path) -> Classes:
        """Read a ``classes.txt``: one class a line, in the order of the ids.

        A line is a name, or a name and its colour as three numbers of 0 to 255: ``road 128 64
        128``. All have a colour or none has. A line ``void 0 0 0`` gives the colour of the pixels
        that count for nothing, which is no class. Empty lines and lines that begin with ``#``
        are left out.

        Raises
        ------
        ValueError
            Naming the file, the line and what is wrong.
        OSError
        """
        check_file(path)
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: expected text in UTF-8, got other bytes") from error
        found: list[tuple[str, tuple[int, int, int] | None]] = []
        void = None
        for number, line in enumerate(lines, 1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            name, colour = _name_and_colour(line, f"{path}, line {number}")
            if name.lower() != "void":
                found.append((name, colour))
            elif colour is None or void is not None:
                raise ValueError(f"{path}, line {number}: expected one line 'void R G B'")
            else:
                void = colour
        coloured = [colour for _, colour in found if colour is not None]
        if coloured and len(coloured) < len(found):
            raise ValueError(f"{path}: expected a colour for each class or for none")
        try:
            classes = cls.of([name for name, _ in found])
            return dataclasses.replace(
                classes,
                colours=np.array(coloured, np.uint8) if coloured else classes.colours,
                void_colour=void or VOID_COLOUR,
                coloured=bool(coloured) or classes.coloured,
            )
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def table(self) -> np.ndarray:
        """Return the colours of all 256 ids, ``(256, 3)`` in uint8: void's where there is no class.

        >>> Classes.of(VOC_CLASSES).table()[[15, 21, VOID]].tolist()
        [[192, 128, 128], [224, 224, 192], [224, 224, 192]]
        """
        table = np.empty((256, 3), np.uint8)
        table[:] = self.void_colour
        table[: len(self)] = self.colours
        return table

    def ids(self, coloured: np.ndarray) -> np.ndarray:
        """Return the class ids ``(h, w)`` in uint8 of coloured pixels ``(h, w, 3)`` in uint8.

        Raises
        ------
        ValueError
            Naming a colour that no class has, and where it is.

        >>> Classes.of(VOC_CLASSES).ids(np.array([[[192, 128, 128], [224, 224, 192]]], np.uint8))
        array([[ 15, 255]], dtype=uint8)
        """
        known = _code(np.vstack([self.colours, self.void_colour]))
        order = np.argsort(known)
        pixels = _code(coloured)
        at = np.searchsorted(known, pixels, sorter=order)
        at = order[np.minimum(at, len(known) - 1)]
        wrong = known[at] != pixels
        if wrong.any():
            row, column = (int(i[0]) for i in wrong.nonzero())
            colour = tuple(coloured[row, column].tolist())
            raise ValueError(
                f"colour {colour} at row {row}, column {column} is none of the {len(self)} classes'"
            )
        return np.where(at == len(self), VOID, at).astype(np.uint8)


def _name_and_colour(line: str, where: str) -> tuple[str, tuple[int, int, int] | None]:
    """Return a line's name, and its last three words as a colour if they are numbers."""
    words = line.replace(",", " ").split()
    if len(words) < 4 or not all(w.isascii() and w.isdigit() for w in words[-3:]):
        return line, None
    if any(len(word) > 3 or int(word) > 255 for word in words[-3:]):
        raise ValueError(f"{where}: expected a colour of 0 to 255, got {' '.join(words[-3:])}")
    return " ".join(words[:-3]), (int(words[-3]), int(words[-2]), int(words[-1]))


def _code(colours: np.ndarray) -> np.ndarray:
    """Return ``(..., 3)`` bytes as one number each."""
    red, green, blue = (colours[..., i].astype(np.int32) for i in range(3))
    return red << 16 | green << 8 | blue
