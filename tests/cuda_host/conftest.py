"""The host device, and what runs where: the plain build, the sanitizers, a reduced set in CI."""

from __future__ import annotations

import hypothesis
import pytest

from . import build
from .host import HostDevice

#: Needs NVRTC alone.
WITHOUT_HOST = {"test_compile"}

if build.SANITIZER:  # then the conftest above is not loaded, and every example is slow
    hypothesis.settings.register_profile("sanitized", deadline=None, max_examples=20)
    hypothesis.settings.load_profile("sanitized")


def pytest_configure(config):
    for line in (
        "sanitized: of the reduced set that every run has under each sanitizer, too",
        "plain: has nothing to show under a sanitizer",
    ):
        config.addinivalue_line("markers", line)


def pytest_collection_modifyitems(config, items):
    """Skip, with the reason, where kernels cannot be built; under a sanitizer, drop `plain`."""
    reason = build.missing()
    here = {item for item in items if item.path.parent == build.SHIM.parent}
    for item in here:
        if reason and item.path.stem not in WITHOUT_HOST:
            item.add_marker(pytest.mark.skip(reason=reason))
    if build.SANITIZER:
        dropped = [item for item in here if item.get_closest_marker("plain")]
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in dropped]


@pytest.fixture(scope="module")
def host_device():
    """The CPU as the device of the package's kernels, with ``seed``, ``cp_mode`` and ``sample``."""
    return HostDevice()


@pytest.fixture(scope="module")
def kernels():
    """The CPU as the device of the kernels of these tests."""
    return HostDevice(build.SHIM.parent / "kernels")
