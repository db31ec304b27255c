"""What is measured: named cases, in groups."""

from __future__ import annotations

import dataclasses

from convarith import ConvGeometry


@dataclasses.dataclass(frozen=True)
class Case:
    """One thing to time.

    Attributes
    ----------
    group, name : str
        ``--cases`` takes either, or ``group/name``.
    geometry : ConvGeometry
    dtype : str
    """

    group: str
    name: str
    geometry: ConvGeometry
    dtype: str = "float32"


CASES = (
    # Building W.
    Case("matrix", "64x64", ConvGeometry((64, 64), 3, padding="SAME")),
    Case("matrix", "320x480", ConvGeometry((320, 480), 3, padding="SAME")),
    Case(
        "matrix",
        "32x32x16->16",
        ConvGeometry((32, 32), 3, padding="SAME", in_channels=16, out_channels=16),
    ),
)


def select(names: list[str] | None) -> list[Case]:
    """Return the cases that the names stand for, all of them for None.

    Raises
    ------
    ValueError
        Where a name stands for none.
    """
    if names is None:
        return list(CASES)
    chosen: list[Case] = []
    for name in names:
        found = [c for c in CASES if name in (c.group, c.name, f"{c.group}/{c.name}")]
        if not found:
            known = ", ".join(dict.fromkeys(case.group for case in CASES))
            raise ValueError(f"--cases: no case {name!r}; groups: {known}")
        chosen += [case for case in found if case not in chosen]
    return chosen
