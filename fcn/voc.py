"""Labelled pictures in the layout of Pascal VOC's segmentation challenge."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from . import pictures
from .files import check_file
from .palette import VOC_CLASSES, VOC_COLORMAP, VOID, VOID_COLOUR, Classes

if TYPE_CHECKING:
    import PIL.Image

__all__ = ["VOC_CLASSES", "VOC_COLORMAP", "VOID", "VOID_COLOUR", "Classes", "Dataset", "Sample"]

#: What a picture is padded with: the mean of ImageNet's, which networks see as about nothing.
FILL = (124, 116, 104)


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """A picture, or a crop of one, with the class of each pixel.

    Attributes
    ----------
    name : str
    image : ndarray
        ``(h, w, 3)``, RGB, uint8.
    labels : ndarray
        ``(h, w)``, uint8: class ids, and `VOID`.
    """

    name: str
    image: np.ndarray
    labels: np.ndarray


class Dataset:
    """The pictures of one split, with their masks.

    ``root`` holds ``JPEGImages/NAME.jpg`` (or ``.jpeg``, ``.png``), ``SegmentationClass/NAME.png``
    and ``ImageSets/Segmentation/SPLIT.txt``, a name a line. A mask in palette or grey mode holds
    class ids, 255 being void; one in RGB holds the classes' colours. The classes are Pascal VOC's,
    or those of ``root/classes.txt``, see `Classes.read`.

    All files are read once here, so that what is wrong with one is known before the work begins.
    A picture that is missing, damaged or of another size than its mask is left out, and why is in
    `skipped`. A mask with a class that there is not is an error always: the class list is wrong
    then, not the file.

    Parameters
    ----------
    root : path
    split : str
        Such as ``"train"``.
    crop : (int, int) or None
        Height and width of the samples; None: whole pictures.
    seed : int
        What the order, the crops and the flips of `epoch` come from, and nothing else: they are
        the same on every machine.
    strict : bool
        Raise for the first picture that would be skipped for a fault.
    pad : bool
        Pad pictures smaller than the crop, on the right and at the bottom, labels with void. They
        are left out otherwise, as in Zhang et al., "Dive into Deep Learning", section 14.9, and
        are in `small`.
    flip : bool
        Mirror the samples of `epoch` left to right, half of them at random.
    progress : bool
        Show a progress bar while reading, on a terminal.

    Attributes
    ----------
    classes : Classes
    names : list of str
        Of the samples, in the order of the split's file.
    sizes : dict of str to (int, int)
        Height and width of every whole picture, the small ones too.
    small : list of str
        Names of the pictures that are smaller than the crop and left out.
    skipped : dict of str to str
        Names of the pictures left out for a fault, and which.

    Raises
    ------
    OSError, ValueError
        Naming the file or the argument. Where no picture is as large as the crop, with the
        largest that one has.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        crop: tuple[int, int] | None = (320, 480),
        *,
        seed: int = 0,
        strict: bool = False,
        pad: bool = False,
        flip: bool = False,
        progress: bool = False,
    ) -> None:
        self.root, self.split, self.seed = Path(root), split, seed
        self.pad, self.flip = pad, flip
        self.crop = _checked_crop(crop)
        listed = _names(self.root, split)
        listing = self.root / "classes.txt"
        self.classes = Classes.read(listing) if listing.exists() else Classes.of(VOC_CLASSES)
        self.sizes: dict[str, tuple[int, int]] = {}
        self.skipped: dict[str, str] = {}
        for name in _bar(listed, f"reading {split}") if progress else listed:
            try:
                self.sizes[name] = self._read(name).labels.shape
            except pictures.Unreadable as error:
                if strict:
                    raise
                self.skipped[name] = str(error)
        if not self.sizes:
            first = f", the first: {next(iter(self.skipped.values()))}" if self.skipped else ""
            raise ValueError(f"{self.root}: split {split!r} has no whole picture{first}")
        self.small = [] if pad else [name for name, size in self.sizes.items() if self._less(size)]
        left_out = set(self.small)
        self.names = [name for name in self.sizes if name not in left_out]
        if self.crop is not None and not self.names:
            height, width = max(self.sizes.values(), key=lambda size: size[0] * size[1])
            raise ValueError(
                f"crop: expected at most {height} x {width}, the largest picture of split "
                f"{split!r}, got {self.crop[0]} x {self.crop[1]}"
            )

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """Return a whole picture, by its place in `names`."""
        return self._read(self.names[index])

    def order(self, epoch: int) -> list[str]:
        """Return the names in the order of an epoch: by a hash, so alike on every machine."""
        return sorted(self.names, key=lambda name: self._draw(epoch, name, "order"))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Sample]:
        """Yield every picture once, in the epoch's order, each with a random crop and flip.

        Parameters
        ----------
        epoch : int
        start : int
            How many to leave out; what follows them is the same as without.
        """
        for name in self.order(epoch)[start:]:
            sample = self._read(name)
            if self.crop is not None:
                sample = self._cropped(sample, epoch, self.crop)
            if self.flip and self._draw(epoch, name, "flip") % 2:
                sample = Sample(name, sample.image[:, ::-1], sample.labels[:, ::-1])
            yield sample

    def _cropped(self, sample: Sample, epoch: int, crop: tuple[int, int]) -> Sample:
        height, width = crop
        image, labels = sample.image, sample.labels
        missing = (max(0, height - len(labels)), max(0, width - labels.shape[1]))
        if any(missing):
            after = ((0, missing[0]), (0, missing[1]))
            labels = np.pad(labels, after, constant_values=VOID)
            padded = np.empty((*labels.shape, 3), np.uint8)
            padded[:] = FILL
            padded[: len(image), : image.shape[1]] = image
            image = padded
        top, left = (
            self._draw(epoch, sample.name, axis) % (have - want + 1)
            for axis, have, want in zip(("top", "left"), labels.shape, crop, strict=True)
        )
        window = slice(top, top + height), slice(left, left + width)
        return Sample(sample.name, image[window], labels[window])

    def _draw(self, epoch: int, name: str, what: str) -> int:
        """Return a number that is as good as random, and depends on the arguments alone."""
        text = f"{self.seed}/{epoch}/{what}/{name}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")

    def _less(self, size: tuple[int, int]) -> bool:
        return self.crop is not None and (size[0] < self.crop[0] or size[1] < self.crop[1])

    def files(self) -> Iterator[Path]:
        """Yield every file that is read: the lists, and each picture's own, at fault or not."""
        yield from (_listing(self.root, self.split), self.root / "classes.txt")
        for name in (*self.sizes, *self.skipped):
            yield from self._files(name)

    def _files(self, name: str) -> tuple[Path, Path]:
        """Return where a picture and its mask are."""
        folder = self.root / "JPEGImages"
        paths = [folder / f"{name}{suffix}" for suffix in (".jpg", ".jpeg", ".png")]
        path = next((path for path in paths if os.path.exists(path)), paths[0])
        return path, self.root / "SegmentationClass" / f"{name}.png"

    def _read(self, name: str) -> Sample:
        path, mask = self._files(name)
        image = np.asarray(pictures.read(path))
        labels = self._labels(mask)
        if image.shape[:2] != labels.shape:
            (ih, iw), (lh, lw) = image.shape[:2], labels.shape
            raise pictures.Unreadable(
                f"{mask}: expected {ih} x {iw} pixels as {path.name} has, got {lh} x {lw}"
            )
        return Sample(name, image, labels)

    def _labels(self, path: Path) -> np.ndarray:
        picture = pictures.load(path, turn=False)
        if self._repainted(picture):
            picture = picture.convert("RGB")
        if picture.mode in ("P", "L", "1"):
            labels = np.asarray(picture).astype(np.uint8)
            wrong = (labels >= len(self.classes)) & (labels != VOID)
            if wrong.any():
                row, column = (int(i[0]) for i in wrong.nonzero())
                raise ValueError(
                    f"{path}: expected class ids below {len(self.classes)} or {VOID}, "
                    f"got {labels[row, column]} at row {row}, column {column}"
                )
            return labels
        coloured = np.asarray(picture)
        if picture.mode == "RGBA" and (coloured[..., 3] == 255).all():
            coloured = coloured[..., :3]
        elif picture.mode != "RGB":
            raise ValueError(f"{path}: expected a mask in palette, grey or RGB, got {picture.mode}")
        if not self.classes.coloured:
            raise ValueError(
                f"{path}: a mask in RGB needs the classes' colours, "
                f"and {self.root / 'classes.txt'} has none"
            )
        try:
            return self.classes.ids(coloured)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def _repainted(self, picture: PIL.Image.Image) -> bool:
        """Whether a palette has the classes' colours at other ids than theirs.

        So it is where a program has sorted the palette or left out what is not used. A palette of
        other colours says nothing: the numbers are the ids.
        """
        if picture.mode != "P" or not self.classes.coloured:
            return False
        palette = np.zeros((256, 3), np.uint8)
        given = np.array(picture.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
        palette[: len(given)] = given
        used = np.flatnonzero(np.bincount(np.asarray(picture).ravel()))
        own = {id_: tuple(colour) for id_, colour in enumerate(self.classes.colours.tolist())}
        own[VOID] = tuple(self.classes.void_colour)
        there = {int(id_): tuple(palette[id_].tolist()) for id_ in used}
        moved = any(own.get(id_, colour) != colour for id_, colour in there.items())
        return moved and {*own.values()}.issuperset(there.values())


def _checked_crop(crop: tuple[int, int] | None) -> tuple[int, int] | None:
    if crop is None:
        return None
    sides = tuple(crop)
    if len(sides) != 2 or not all(isinstance(n, int | np.integer) and n > 0 for n in sides):
        raise ValueError(f"crop: expected (height, width) of at least 1, got {crop!r}")
    return int(sides[0]), int(sides[1])


def _listing(root: Path, split: str) -> Path:
    """Return the file that names a split's pictures."""
    return root / "ImageSets" / "Segmentation" / f"{split}.txt"


def _names(root: Path, split: str) -> list[str]:
    """Return the names in a split's file."""
    path = _listing(root, split)
    folder = path.parent
    if not folder.is_dir():
        raise ValueError(f"{root}: expected Pascal VOC's layout, got no {folder}")
    splits = sorted(file.stem for file in folder.glob("*.txt"))
    if split not in splits:
        raise ValueError(f"{root}: expected a split of {', '.join(splits)}, got {split!r}")
    check_file(path)
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8, got other bytes") from error
    names = [name for name in names if name]
    seen: set[str] = set()
    for name in names:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\0" in name:
            raise ValueError(f"{path}: expected names of pictures, got {name!r}")
        if name in seen:
            raise ValueError(f"{path}: expected each name once, got {name!r} twice")
        seen.add(name)
    if not names:
        raise ValueError(f"{path}: expected names of pictures, got none")
    return names


def _bar(names: list[str], text: str) -> Iterator[str]:
    from tqdm import tqdm

    yield from tqdm(names, desc=text, unit="image", disable=None, leave=False)
