"""What is measured on a GPU: the cases, each at several precisions and batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cases
from cases import Case

from convarith import ConvGeometry

#: The dtype of the arrays by precision: TF32 is a way to multiply float32.
DTYPES = {
    "float32": "float32",
    "tf32": "float32",
    "bfloat16": "bfloat16",
    "float16": "float16",
}
PRECISIONS = tuple(DTYPES)
BATCHES = (1, 16)
#: Labels are written for a batch of pictures at once.
ARGMAX = Case("argmax", "argmax", ConvGeometry((320, 480), 1, in_channels=21), batch=16)
#: The groups, the most important first: a run that ends early has measured these.
GROUPS = ("transposed", "forward", "argmax", "kernel_gradient", "calls")

#: Neither the matrix, which SciPy's host arrays hold, nor first calls, which compile elsewhere.
CASES = tuple(
    case
    for group in GROUPS
    for case in (*cases.CASES, ARGMAX)
    if case.group == group and not case.name.endswith("first_call")
)


@dataclasses.dataclass(frozen=True)
class Trial:
    """A case at one precision and batch.

    Attributes
    ----------
    case : Case
        With the dtype and the batch that are measured.
    precision : {"float32", "tf32", "bfloat16", "float16"}
    """

    case: Case
    precision: str

    @property
    def path(self) -> str:
        """The name that no other trial has."""
        return f"{self.case.path} {self.precision} n{self.case.batch}"

    @property
    def memory_bound(self) -> bool:
        """Whether the least time is that of moving the bytes, at any precision."""
        case = self.case
        depthwise = case.group == "forward" and case.geometry.groups > 1
        return case.bilinear or depthwise or case.group == "argmax"


def trials(
    names: list[str] | None,
    precisions: Sequence[str] = PRECISIONS,
    batches: Sequence[int] = BATCHES,
) -> list[Trial]:
    """Return what the names stand for, in order of importance: groups, precisions, batches.

    A batch below a case's own is the case's own. The argmax and the calls are measured once, in
    float32.

    Raises
    ------
    ValueError
        Where a name stands for no case.
    """
    chosen = cases.select(names, CASES)
    found: list[Trial] = []
    for group in GROUPS:
        members = [case for case in chosen if case.group == group]
        if group in ("argmax", "calls"):
            found += [Trial(case, "float32") for case in members]
            continue
        for precision in precisions:
            for batch in batches:
                found += [
                    Trial(
                        dataclasses.replace(
                            case, dtype=DTYPES[precision], batch=max(batch, case.batch)
                        ),
                        precision,
                    )
                    for case in members
                ]
    return list(dict.fromkeys(found))
