"""How much memory is free, told from made-up kernel files."""

from pathlib import Path

import pytest

from arrayhost.errors import HostMemoryError
from arrayhost.memory import budget
from arrayhost.memory.budget import Free, check_free, free_bytes

MIB = 1024 * 1024


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable:    1000000 kB\nCached: 5 kB\n")
    (tmp_path / "cg").mkdir()
    return tmp_path / "proc"


@pytest.fixture
def cgroups(tmp_path: Path) -> Path:
    return tmp_path / "cg"


def v2(folder: Path, limit: object, usage: int, inactive: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{usage}\n")
    (folder / "memory.stat").write_text(f"anon 1\nfile 77\ninactive_file {inactive}\n")


def v1(folder: Path, limit: int, usage: int, inactive: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{usage}\n")
    (folder / "memory.stat").write_text(f"cache 1\ninactive_file 1\ntotal_inactive_file {inactive}\n")


def test_without_groups_the_machine_is_the_bound(proc: Path, cgroups: Path) -> None:
    assert free_bytes(proc, cgroups) == Free(1_000_000 * 1024, "this machine")


def test_version_2(proc: Path, cgroups: Path) -> None:
    (proc / "self/cgroup").write_text("0::/user/job\n")
    v2(cgroups / "user/job", 300 * MIB, 100 * MIB, 20 * MIB)
    assert free_bytes(proc, cgroups) == Free(220 * MIB, f"the control group {cgroups / 'user/job'}")


def test_the_tightest_group_above_decides(proc: Path, cgroups: Path) -> None:
    (proc / "self/cgroup").write_text("0::/user/job/step\n")
    v2(cgroups / "user/job/step", "max", 10 * MIB)
    v2(cgroups / "user/job", 300 * MIB, 100 * MIB)
    v2(cgroups / "user", 150 * MIB, 120 * MIB)
    assert free_bytes(proc, cgroups) == Free(30 * MIB, f"the control group {cgroups / 'user'}")


def test_in_a_container_the_root_is_the_group(proc: Path, cgroups: Path) -> None:
    (proc / "self/cgroup").write_text("0::/docker/0123\n")
    v2(cgroups, 200 * MIB, 50 * MIB)
    assert free_bytes(proc, cgroups) == Free(150 * MIB, f"the control group {cgroups}")


def test_version_1(proc: Path, cgroups: Path) -> None:
    (proc / "self/cgroup").write_text("12:cpu,cpuacct:/other\n4:memory:/job\n1:name=systemd:/x\n0::/job\n")
    v1(cgroups / "memory/job", 400 * MIB, 100 * MIB, 30 * MIB)
    v1(cgroups / "memory", 2**63 - 4096, 500 * MIB)
    assert free_bytes(proc, cgroups) == Free(330 * MIB, f"the control group {cgroups / 'memory/job'}")


def test_groups_without_a_limit_do_not_count(proc: Path, cgroups: Path) -> None:
    (proc / "self/cgroup").write_text("0::/\n")
    v2(cgroups, "max", 50 * MIB)
    assert free_bytes(proc, cgroups).limit == "this machine"


def test_a_large_group_leaves_the_machine_as_the_bound(proc: Path, cgroups: Path) -> None:
    (proc / "self/cgroup").write_text("0::/\n")
    v2(cgroups, 2**50, 0)
    assert free_bytes(proc, cgroups).limit == "this machine"


def test_the_real_machine_has_something_free() -> None:
    assert free_bytes().n_bytes > 0


def test_a_need_beyond_what_is_free_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "free_bytes", lambda: Free(100 * MIB, "the control group /g"))
    check_free(36 * MIB)
    with pytest.raises(HostMemoryError, match=r"needs 36\.0 MiB and the control group /g has 36\.0 MiB") as caught:
        check_free(36 * MIB + 1)
    assert (caught.value.need_bytes, caught.value.free_bytes) == (36 * MIB + 1, 36 * MIB)


def test_with_less_free_than_the_reserve_nothing_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "free_bytes", lambda: Free(-5, "this machine"))
    with pytest.raises(HostMemoryError) as caught:
        check_free(5 * MIB)
    assert caught.value.free_bytes == 0
