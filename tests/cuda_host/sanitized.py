"""Run these tests under a sanitizer: ``python -m tests.cuda_host.sanitized address``.

Arguments after the sanitizer's name are pytest's; without any, all tests run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from . import build

ROOT = Path(__file__).parents[2]
#: What must be loaded before Python, which is not built for it.
LIBRARIES = {"address": ("libasan.so", "libubsan.so"), "thread": ("libtsan.so",)}
#: How a process ends that was reported.
FOUND = 66
OPTIONS = {
    # Python itself gives little back at its end.
    "ASAN_OPTIONS": f"detect_leaks=0:abort_on_error=0:exitcode={FOUND}",
    "UBSAN_OPTIONS": f"print_stacktrace=1:halt_on_error=1:exitcode={FOUND}",
    "TSAN_OPTIONS": f"halt_on_error=1:exitcode={FOUND}:ignore_noninstrumented_modules=1",
    "OPENBLAS_NUM_THREADS": "1",
}


def environment(sanitizer: str) -> dict[str, str]:
    """Return the environment that a process needs to run kernels under a sanitizer."""
    if sanitizer not in build.SANITIZERS:
        raise ValueError(
            f"sanitizer: expected one of {sorted(build.SANITIZERS)}, got {sanitizer!r}"
        )
    libraries = [
        subprocess.run(
            ["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in LIBRARIES[sanitizer]
    ]
    absent = [path for path in libraries if not os.path.isabs(path)]  # g++ gives the bare name back
    if absent:
        raise FileNotFoundError(f"g++ has no {', '.join(absent)}: install its sanitizers")
    preload = {"LD_PRELOAD": " ".join(libraries), "CONVARITH_HOST_SANITIZER": sanitizer}
    return {**os.environ, **OPTIONS, **preload}


def pytest_command(arguments: list[str]) -> list[str]:
    """Return the command that runs these tests alone, without what the other tests load."""
    folder = build.SHIM.parent
    # A report is written as the process ends, past pytest's own capture.
    options = ["-q", "--capture=sys", "-p", "no:cacheprovider", f"--confcutdir={folder}"]
    selected = arguments if any("cuda_host" in part for part in arguments) else [folder, *arguments]
    return [sys.executable, "-m", "pytest", *options, *map(str, selected)]


def main() -> int:
    """Run the command line."""
    if len(sys.argv) < 2 or sys.argv[1] not in build.SANITIZERS:
        print(f"expected one of {', '.join(build.SANITIZERS)} first", file=sys.stderr)
        return 2
    command = pytest_command(sys.argv[2:])
    return subprocess.run(command, env=environment(sys.argv[1]), cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
