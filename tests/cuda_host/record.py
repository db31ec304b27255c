"""Rewrite registers.json, what every shipped kernel takes: ``python -m tests.cuda_host.record``."""

from __future__ import annotations

import concurrent.futures
import json
from pathlib import Path

from convarith.backends.cuda.compile import ARCHITECTURES
from convarith.backends.cuda.specialisations import SPECIALISATIONS, Specialisation

from . import machine_code

FILE = Path(__file__).parent / "registers.json"


def recorded() -> dict[str, dict[str, int]]:
    """Return the registers by specialisation and architecture; none where none were recorded."""
    return {} if not FILE.exists() else json.loads(FILE.read_text(encoding="utf-8"))


def registers(specialisation: Specialisation) -> tuple[str, dict[str, int]]:
    """Compile a specialisation for every architecture and count."""
    counts = {
        architecture: machine_code.report(specialisation, architecture).registers
        for architecture in ARCHITECTURES
    }
    return machine_code.named(specialisation), counts


def main() -> None:
    """Compile everything and write the table."""
    with concurrent.futures.ProcessPoolExecutor() as pool:
        table = sorted(pool.map(registers, SPECIALISATIONS))
    lines = [f"{json.dumps(name)}: {json.dumps(counts)}" for name, counts in table]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
