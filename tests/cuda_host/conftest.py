"""The host device, and what runs where: the plain build, the sanitizers, a reduced set in CI."""

from __future__ import annotations

import hypothesis
import pytest

from convarith.backends.cuda import device as devices

from . import build
from .host import HostDevice
from .problems import Watched

#: Needs NVRTC alone.
WITHOUT_HOST = {"test_compile"}

if build.SANITIZER:  # then the conftest above is not loaded, and every example is slow
    hypothesis.settings.register_profile("sanitized", deadline=None, max_examples=20)
    hypothesis.settings.load_profile("sanitized")


def pytest_configure(config):
    for line in (
        "sanitized: of the reduced set that every run has under ASan and UBSan, too",
        "races: of the one that every run has under TSan, where a block takes tenths of a second",
        "plain: has nothing to show under a sanitizer",
    ):
        config.addinivalue_line("markers", line)


def pytest_collection_modifyitems(config, items):
    """Skip, with the reason, where kernels cannot be built; under a sanitizer, drop `plain`."""
    reason = build.missing()
    here = {item for item in items if item.path.parent == build.SHIM.parent}
    for item in here:
        alone = item.get_closest_marker("cuda") and "host_device" not in item.fixturenames
        if reason and not alone and item.path.stem not in WITHOUT_HOST:
            item.add_marker(pytest.mark.skip(reason=reason))
    if build.SANITIZER:
        dropped = [item for item in here if any(map(item.get_closest_marker, ("plain", "cuda")))]
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in dropped]


@pytest.fixture(scope="module")
def host_device():
    """The CPU as the device of the package's kernels."""
    return Watched(HostDevice())


@pytest.fixture(scope="module")
def gpu():
    """CuPy's device."""
    return Watched(devices.current())


@pytest.fixture(scope="module", params=["host", pytest.param("gpu", marks=pytest.mark.cuda)])
def device(request):
    """A device of the package's kernels: the CPU, and a GPU where there is one."""
    return request.getfixturevalue("gpu" if request.param == "gpu" else "host_device")


@pytest.fixture(scope="module")
def kernels():
    """The CPU as the device of the kernels of these tests."""
    return HostDevice(build.SHIM.parent / "kernels")
