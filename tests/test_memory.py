"""How much memory there is: the limits of cgroups, by trees made here."""

import pytest

from convarith.memory import _cgroups_available, available_bytes, require_bytes


def group(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def v2(folder, limit, used, inactive):
    stat = f"anon 5\ninactive_file {inactive}"
    group(folder, memory__max=limit, memory__current=used, memory__stat=stat)


@pytest.fixture
def tree(tmp_path):
    def available(*lines):
        membership = tmp_path / "cgroup"
        membership.write_text("".join(f"{line}\n" for line in lines))
        return sorted(_cgroups_available(membership, tmp_path / "fs"))

    return tmp_path / "fs", available


def test_version_2_and_the_groups_around(tree):
    root, available = tree
    v2(root / "slice" / "mine", 1000, 600, 50)
    v2(root / "slice", 5000, 4000, 0)
    v2(root / "other", 10, 0, 0)
    assert available("0::/slice/mine") == [450, 1000]
    v2(root / "slice" / "mine", "max", 600, 50)
    assert available("0::/slice/mine") == [1000]


def test_version_1(tree):
    root, available = tree
    stat = "cache 7\ntotal_inactive_file 30"
    group(
        root / "memory" / "job",
        memory__limit_in_bytes=1000,
        memory__usage_in_bytes=800,
        memory__stat=stat,
    )
    lines = ["9:name=systemd:/job", "4:cpu,memory:/job", "0::/"]
    assert available(*lines) == [230]


def test_no_limits(tree):
    _, available = tree
    assert available("0::/anything", "3:cpu:/x") == []


def test_a_limit_that_is_used_up(tree):
    root, available = tree
    v2(root, 100, 300, 0)
    assert available("0::/") == [0]


def test_available_bytes():
    assert 2**20 < available_bytes() < 2**60
    require_bytes("a page", 4096)
    with pytest.raises(ValueError, match="the world would take .* more than the .* available"):
        require_bytes("the world", 2**70)
