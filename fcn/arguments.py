"""What command-line arguments are made of: each reads a text, or refuses it with a reason."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path


def positive(text: str) -> int:
    """Return a positive integer."""
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text)


def height_and_width(text: str) -> tuple[int, int]:
    """Return the two sides of ``HxW``.

    >>> height_and_width("320x480")
    (320, 480)
    """
    if not re.fullmatch(r"[1-9][0-9]{0,8}x[1-9][0-9]{0,8}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH such as 320x480, got {text!r}")
    height, width = text.split("x")
    return int(height), int(width)


def picture_to_write(text: str) -> Path:
    """Return the path of a picture that can be written there."""
    path = Path(text)
    suffixes = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
    if path.suffix.lower() not in suffixes:
        raise argparse.ArgumentTypeError(f"expected a name ending in {', '.join(suffixes)}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"no folder {path.parent}")
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder")
    if not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"folder {path.parent} cannot be written to")
    return path


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="where to compute (default: cpu)"
    )
