"""Rewrite registers.json, what every shipped kernel takes: ``python -m tests.cuda_host.record``."""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
from pathlib import Path

from convarith.backends.cuda.compile import ARCHITECTURES
from convarith.backends.cuda.specialisations import SPECIALISATIONS, Specialisation

from . import machine_code

FILE = Path(__file__).parent / "registers.json"


def recorded() -> dict[str, dict[str, int]]:
    """Return the registers by specialisation and architecture; none where none were recorded."""
    return {} if not FILE.exists() else json.loads(FILE.read_text(encoding="utf-8"))


def registers(job: tuple[Specialisation, str]) -> tuple[str, str, int]:
    """Compile a specialisation for an architecture and count."""
    specialisation, architecture = job
    name = machine_code.named(specialisation)
    return name, architecture, machine_code.report(specialisation, architecture).registers


def main() -> None:
    """Compile everything and write the table: a line a specialisation, all of it or nothing."""
    reason = machine_code.missing()
    if reason:
        raise SystemExit(reason)
    jobs = [(one, architecture) for one in SPECIALISATIONS for architecture in ARCHITECTURES]
    table: dict[str, dict[str, int]] = {}
    # Processes that begin anew: NVRTC holds locks that a fork would copy.
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(mp_context=spawn) as pool:
        for name, architecture, count in pool.map(registers, jobs, chunksize=4):
            table.setdefault(name, {})[architecture] = count
    lines = [f"{json.dumps(name)}: {json.dumps(table[name])}" for name in sorted(table)]
    beside = FILE.with_suffix(".part")
    beside.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    beside.replace(FILE)


if __name__ == "__main__":
    main()
