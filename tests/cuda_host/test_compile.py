"""Every shipped kernel compiles for every card, spills nothing, has the instructions it claims.

A specialisation stands for others of the same file and element where it takes the most registers,
for spills show there first: by default each of those is compiled for sm_90, and one of each file
for every architecture. CONVARITH_COMPILE_ALL=1 compiles all for all.
"""

import os

import pytest

from convarith.backends.cuda.compile import ARCHITECTURES, FOLDER
from convarith.backends.cuda.specialisations import SPECIALISATIONS

from . import machine_code, record

pytestmark = [
    pytest.mark.plain,
    pytest.mark.skipif(machine_code.missing() is not None, reason=str(machine_code.missing())),
]
#: More registers than recorded that another version of the compiler may take.
SLACK = 8
RECORDED = record.recorded()


def stands_for(specialisation, *constants):
    """Return whether none of the same file and constants takes more registers on sm_90."""

    def registers(one):
        return RECORDED.get(machine_code.named(one), {}).get("sm_90", 0)

    alike = [
        other
        for other in SPECIALISATIONS
        if other.name == specialisation.name
        and all(other.constants[key] == specialisation.constants[key] for key in constants)
    ]
    return max(alike, key=registers) is specialisation


CASES = [
    pytest.param(specialisation, architecture, id=f"{i}-{specialisation.name}-{architecture}")
    for i, specialisation in enumerate(SPECIALISATIONS)
    for architecture in ARCHITECTURES
    if os.environ.get("CONVARITH_COMPILE_ALL")
    or stands_for(specialisation)
    or (architecture == "sm_90" and stands_for(specialisation, "ELEMENT"))
]


def test_every_kernel_has_a_specialisation():
    names = {specialisation.name for specialisation in SPECIALISATIONS}
    assert names == {path.stem for path in FOLDER.glob("*.cu")}


def test_the_table_of_registers_is_of_what_is_shipped():
    names = {machine_code.named(specialisation) for specialisation in SPECIALISATIONS}
    assert set(RECORDED) == names, "python -m tests.cuda_host.record rewrites it"


@pytest.mark.parametrize(("specialisation", "architecture"), CASES)
def test_a_kernel_compiles_to_what_it_claims(specialisation, architecture):
    report = machine_code.report(specialisation, architecture)
    assert "warning" not in report.log, report.log
    if not specialisation.spills:
        assert (report.local, report.stack) == (0, 0), "local memory is used"
    few = {
        name: (report.instructions[name], least)
        for name, least in specialisation.sass.items()
        if report.instructions[name] < least
    }
    assert not few, "fewer than claimed"
    recorded = RECORDED[machine_code.named(specialisation)][architecture]
    assert report.registers <= recorded + SLACK
