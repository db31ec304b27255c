"""The command line: ``python -m fcn``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return its exit code, 2 for what the caller can mend."""
    parser = argparse.ArgumentParser(prog="python -m fcn", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="say what a photograph shows, and draw where")
    demo.add_argument(
        "image", nargs="?", type=Path, metavar="IMAGE", help="default: scikit-image's cat"
    )
    demo.add_argument(
        "--top", type=_positive, default=3, metavar="N", help="classes to print (default: 3)"
    )
    demo.add_argument(
        "--out", type=_picture, default=Path("demo.png"), help="the panel (default: demo.png)"
    )
    options = parser.parse_args(arguments)

    for stream in (sys.stdout, sys.stderr):  # a file's name may not fit the console's encoding
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        return _demo(options)
    except BrokenPipeError:  # whoever read the output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ModuleNotFoundError as error:
        problem = f'{error.name} is not installed: pip install "convarith[fcn]"'
    except MemoryError:
        problem = "not enough memory"
    except (OSError, ValueError) as error:  # a file or an input that is not what it must be
        problem = str(error)
    print(f"fcn: {problem}", file=sys.stderr)
    return 2


def _demo(options: argparse.Namespace) -> int:
    from .demo import demo

    if options.image is not None and options.out.exists() and options.out.samefile(options.image):
        raise ValueError(f"--out: {options.out} is the photograph itself")
    demo(options.image, top=options.top, out=options.out)
    return 0


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text)


def _picture(text: str) -> Path:
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


if __name__ == "__main__":
    sys.exit(main())
