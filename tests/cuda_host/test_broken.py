"""The checks catch what they must: every seeded bug shows, and says what it is.

``plain``: the result is wrong in some order of threads and copies, or the launch ends in an
error of the machine's. ``address`` and ``thread``: the process ends with that sanitizer's report.
"""

import subprocess
import sys

import numpy as np
import pytest

from . import sanitized, seeded
from .host import HostError

pytestmark = pytest.mark.plain
WRONG = "wrong"
OVERFLOW, RACE = "heap-buffer-overflow", "data race"

#: What shows a bug, of a kernel in broken/ with one macro defined, in each build.
SHOWN = {
    ("pipeline", "BUG_NO_WAIT"): {"plain": WRONG},
    ("pipeline", "BUG_WAIT_FOR_TOO_FEW"): {"plain": WRONG},
    ("pipeline", "BUG_NO_COMMIT"): {"plain": WRONG},
    ("pipeline", "BUG_NO_BARRIER"): {"plain": WRONG, "thread": RACE},
    ("pipeline", "BUG_EARLY_RELEASE"): {"plain": WRONG, "thread": RACE},
    ("bounds", "BUG_GLOBAL_READ"): {"address": OVERFLOW},
    ("bounds", "BUG_BEFORE"): {"address": OVERFLOW},
    ("bounds", "BUG_GLOBAL_WRITE"): {"address": OVERFLOW},
    ("bounds", "BUG_SHARED"): {"address": OVERFLOW},
    ("bounds", "BUG_DYNAMIC_SHARED"): {"address": OVERFLOW},
    ("bounds", "BUG_MISALIGNED"): {"address": "misaligned address"},
    ("bounds", "BUG_MISALIGNED_COPY"): {"plain": "cp.async: an address is not a multiple"},
    ("bounds", "BUG_COPY"): {"address": OVERFLOW},
    ("bounds", "BUG_COPY_OF_TOO_MUCH"): {"plain": "cp.async: expected 0 to 16 bytes"},
    ("order", "BUG_NO_BARRIER"): {"plain": WRONG, "thread": RACE},
    ("order", "BUG_NO_SECOND_BARRIER"): {"plain": WRONG, "thread": RACE},
    ("order", "BUG_NO_SYNCWARP"): {"plain": WRONG, "thread": RACE},
    ("order", "BUG_BLOCKS"): {"plain": WRONG, "thread": RACE},
    ("waits", "BUG_RETURN"): {"plain": "wait for each other: .* 1 done"},
    ("waits", "BUG_BRANCH"): {"plain": "wait for each other: 40 at the barrier of .*; 24 at"},
    ("waits", "BUG_SOME_LANES"): {"plain": "wait for each other: .* in the warp of"},
    ("waits", "BUG_TWO_PLACES"): {"plain": "lanes of a warp are at two places"},
}
CASES = [(*bug, build, how) for bug, shown in SHOWN.items() for build, how in shown.items()]


@pytest.mark.parametrize("kernel", seeded.LAUNCHES)
def test_without_a_bug_every_order_gives_the_same(kernel):
    results = [seeded.run(kernel, seed=seed, cp_mode=seed % 3) for seed in range(6)]
    assert not np.isnan(results[0]).any()
    for result in results:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize(("kernel", "bug", "build", "how"), CASES)
def test_a_seeded_bug_shows(kernel, bug, build, how):
    if build != "plain":
        command = [sys.executable, "-m", "tests.cuda_host.seeded", kernel, bug]
        done = subprocess.run(
            command,
            env=sanitized.environment(build),
            cwd=sanitized.ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == sanitized.FOUND, done.stderr
        assert how in done.stderr
        assert f"{kernel}.cu:" in done.stderr, "the report names no line of the kernel"
    elif how == WRONG:
        right = seeded.run(kernel)
        runs = [(seed, cp_mode) for seed in range(8) for cp_mode in range(3)]
        results = (seeded.run(kernel, bug, seed=seed, cp_mode=mode) for seed, mode in runs)
        assert any(not np.array_equal(result, right) for result in results)
    else:
        with pytest.raises(HostError, match=how):
            seeded.run(kernel, bug)
