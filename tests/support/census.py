"""The census: what this process and its children hold, so that a test which leaves something behind fails.

Only what belongs to this process, to processes below it, or to nobody is counted: several test runs may share a
machine.
"""

import gc
import multiprocessing
import os
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import ProcessInfo, abort_all, descendants

# Helpers that libraries start when first used and keep for the life of the process, by design: (module, its only
# instance, attribute with the helper's pid, attribute with the descriptor that keeps it alive). Asked anew each time,
# since they are restarted when they die. Processes *below* the fork server are tests' processes, and count.
_STANDING_HELPERS = (
    ("multiprocessing.resource_tracker", "_resource_tracker", "_pid", "_fd"),
    ("multiprocessing.forkserver", "_forkserver", "_forkserver_pid", "_forkserver_alive_fd"),
    ("joblib.externals.loky.backend.resource_tracker", "_resource_tracker", "_pid", "_fd"),
)
# libffi keeps one such file open once a ctypes callback was made on a system that forbids writable executable memory.
_STANDING_FILE = "/memfd:libffi"


@dataclass(frozen=True)
class Census:
    """Everything countable at one moment. ``take()`` one before, ask it ``leaks()`` after."""

    descriptors: dict[int, str]
    threads: frozenset[threading.Thread]
    processes: dict[tuple[int, int], ProcessInfo]
    shm_files: frozenset[str]
    runtime_files: frozenset[str]
    sockets: dict[str, str]
    mappings: Counter[str]

    @classmethod
    def take(cls) -> "Census":
        helper_pids, helper_descriptors = standing_helpers()
        return cls(
            descriptors={
                number: target
                for number, target in _descriptors(os.getpid()).items()
                if number not in helper_descriptors and not target.startswith(_STANDING_FILE)
            },
            threads=frozenset(threading.enumerate()),
            processes={(info.pid, info.start): info for info in descendants() if info.pid not in helper_pids},
            shm_files=_shm_files(),
            runtime_files=_runtime_files(),
            sockets=_sockets(),
            mappings=_mappings(),
        )

    def leaks(self, timeout: float = 5.0, ignore: Iterable[str] = ()) -> list[str]:
        """One line for each thing there is now and was not then; what matches a pattern in `ignore` is let pass.

        Asks for up to `timeout` seconds, collecting garbage in between: a peer needs a moment to notice that it is no
        longer needed, and an object in a reference cycle is closed only when collected.
        """
        ignored = [re.compile(pattern) for pattern in ignore]
        deadline = time.monotonic() + timeout
        while True:
            found = [line for line in self._difference() if not any(pattern.search(line) for pattern in ignored)]
            if not found or time.monotonic() >= deadline:
                return found
            gc.collect()
            time.sleep(0.01)

    def kill_new_processes(self) -> None:
        """End every process that was not there then, so that one test's leftover does not disturb the next."""
        abort_all(info.pid for info in self._new_processes())
        self._new_processes()

    def _difference(self) -> Iterable[str]:
        processes = self._new_processes()
        now = Census.take()
        yield from (str(info) for info in processes)
        for number, target in now.descriptors.items():
            if self.descriptors.get(number) != target:
                name = now.sockets.get(target, "")
                yield f"descriptor {number}: {target} {name}".rstrip()
        yield from (f"thread: {thread!r}" for thread in now.threads - self.threads)
        yield from (f"file: {path}" for path in now.runtime_files - self.runtime_files)
        yield from (f"shared memory: {p}" for p in now.shm_files - self.shm_files if not _is_held_elsewhere(p))
        new_sockets = {inode: name for inode, name in now.sockets.items() if inode not in self.sockets}
        if new_sockets:
            for pid in (os.getpid(), *(info.pid for info in processes)):
                for target in sorted(set(_descriptors(pid).values())):
                    if target in new_sockets:
                        yield f"unix socket held by {pid}: {new_sockets[target]}"
        # Bytes rather than lines: the kernel splits and joins neighbouring mappings as it likes.
        for path, n_bytes in (now.mappings - self.mappings).items():
            yield f"mapping: {n_bytes:,} bytes more of {path}"

    def _new_processes(self) -> list[ProcessInfo]:
        """Living processes that were not there then. Dead ones are reaped: orphans have nobody else to do it."""
        helper_pids, _ = standing_helpers()
        news = [p for p in descendants() if (p.pid, p.start) not in self.processes and p.pid not in helper_pids]
        zombies = [info for info in news if info.is_zombie]
        if zombies:
            # multiprocessing first: it keeps the books of its own children and needs their status. Zombies that lived
            # at the time of the census are left alone altogether: a wider fixture owns them and will wait for them.
            multiprocessing.active_children()
            for info in zombies:
                if info.parent == os.getpid():
                    try:
                        os.waitpid(info.pid, os.WNOHANG)
                    except ChildProcessError:
                        pass  # multiprocessing did it
        return [info for info in news if not info.is_zombie]


def standing_helpers() -> tuple[set[int], set[int]]:
    """Pids and descriptors of the helpers that libraries keep."""
    pids, descriptors = set(), set()
    for module_name, instance_name, pid_name, descriptor_name in _STANDING_HELPERS:
        instance = getattr(sys.modules.get(module_name), instance_name, None)
        if (pid := getattr(instance, pid_name, None)) is not None:
            pids.add(pid)
        if (descriptor := getattr(instance, descriptor_name, None)) is not None:
            descriptors.add(descriptor)
    return pids, descriptors


def _descriptors(pid: int) -> dict[int, str]:
    found = {}
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return {}  # gone meanwhile
    for name in names:
        try:
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            pass  # closed meanwhile, as the descriptor of this very listing is
    return found


def _shm_files() -> frozenset[str]:
    try:
        entries = list(os.scandir("/dev/shm"))
    except OSError:
        return frozenset()
    uid = os.getuid()
    found = set()
    for entry in entries:
        try:
            if entry.stat(follow_symlinks=False).st_uid == uid:
                found.add(entry.path)
        except OSError:
            pass  # gone meanwhile
    return frozenset(found)


def _is_held_elsewhere(path: str) -> bool:
    """True if another program's: a process that is not below this one has `path` open or mapped, or its id in the name.

    The name tells before and after the file is mapped, as long as its maker lives.
    """
    ours = {os.getpid(), *(info.pid for info in descendants())}
    named = {int(digits) for digits in re.findall(r"\d+", os.path.basename(path)) if len(digits) < 8}
    if any(os.path.exists(f"/proc/{pid}") for pid in named - ours):
        return True
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        if pid in ours:
            continue
        try:
            if path in _descriptors(pid).values() or path in Path(f"/proc/{pid}/maps").read_text(errors="replace"):
                return True
        except OSError:
            pass  # gone, or not ours to look at
    return False


def _runtime_files() -> frozenset[str]:
    """Files, sockets too, in this run's private XDG_RUNTIME_DIR (see conftest.py); empty folders may stay."""
    root = os.environ.get("XDG_RUNTIME_DIR")
    if root is None:
        return frozenset()
    return frozenset(os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names)


def _sockets() -> dict[str, str]:
    """Unix sockets of arrayhost on this machine, abstract ones (@...) too: target of a descriptor -> name."""
    found = {}
    for line in Path("/proc/net/unix").read_text(errors="replace").splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and "arrayhost" in fields[7]:
            found[f"socket:[{fields[6]}]"] = fields[7]
    return found


def _mappings() -> Counter[str]:
    """Bytes mapped, by file, of what arrayhost maps: memory files, arrays in .npy files, shared memory."""
    found: Counter[str] = Counter()
    # Some thousand lines once large libraries are loaded; hardly any of them is of interest.
    for line in Path("/proc/self/maps").read_text(errors="replace").splitlines():
        if any(part in line for part in ("memfd:arrayhost", ".npy", "/dev/shm/")):
            addresses, _, _, _, inode, path = line.split(maxsplit=5)
            start, end = (int(text, 16) for text in addresses.split("-"))
            found[f"{path}, inode {inode}"] += end - start
    return found
