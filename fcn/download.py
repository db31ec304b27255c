"""One file from an address, below a deadline."""

from __future__ import annotations

import time
from pathlib import Path

#: Seconds until a server must have said something, and until it must have said it all.
TIMEOUT, DEADLINE = 20, 300


def download(url: str, path: Path, *, certificates: str | None = None) -> None:
    """Stream `url` into a file with a progress bar, in `DEADLINE` seconds or not at all.

    Parameters
    ----------
    url : str
    path : Path
    certificates : str, optional
        A file of those to trust, in place of the usual ones.

    Raises
    ------
    OSError
    """
    import requests
    from tqdm import tqdm

    end = time.monotonic() + DEADLINE
    try:
        plain = {"Accept-Encoding": "identity"}  # the bytes as they are, which the digest is of
        with requests.get(
            url, headers=plain, stream=True, timeout=TIMEOUT, verify=certificates or True
        ) as response:
            response.raise_for_status()
            size = int(response.headers.get("Content-Length", 0)) or None
            with (
                path.open("wb") as file,
                tqdm(total=size, unit="B", unit_scale=True, disable=None) as bar,
            ):
                # One read of the socket at a time: a slow sender must not outlast the deadline.
                while block := response.raw.read1(2**16):
                    file.write(block)
                    bar.update(len(block))
                    if time.monotonic() > end:
                        raise TimeoutError(f"{shown(url)} took more than {DEADLINE} s")
    except requests.RequestException as error:
        raise OSError(f"no answer from {shown(url)} ({type(error).__name__})") from error


def shown(url: str) -> str:
    """Return an address without the name and password that it may have.

    >>> shown("https://name:password@example.org/file")
    'https://example.org/file'
    """
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
