"""The reduced set of these tests for each sanitizer: those marked ``sanitized``, or ``races``.

All of them run there by ``python -m tests.cuda_host.sanitized address`` (or ``thread``).
"""

import subprocess

import pytest

from . import build, sanitized

pytestmark = pytest.mark.plain


MARKED = {"address": "sanitized", "thread": "races"}


@pytest.mark.parametrize("sanitizer", build.SANITIZERS)
def test_the_reduced_set_passes_under(sanitizer):
    done = subprocess.run(
        sanitized.pytest_command(["-m", MARKED[sanitizer]]),
        env=sanitized.environment(sanitizer),
        cwd=sanitized.ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
