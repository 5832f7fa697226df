"""Many small arrays: few descriptors, little memory, nothing left; and clear errors at the limit of descriptors."""

import os

import numpy as np
import pytest

from arrayhost import ArrayManager, StaleProxyError
from arrayhost.client.session import round_trips
from arrayhost.errors import ProtocolError
from arrayhost.sync.filelocks import N_LOCK_FILES
from arrayhost.wire.codec import pack_handle
from arrayhost.wire.frames import Kind
from tests.support import assert_same, run_python, wait_until

MANY = """
    import os, pickle, resource, subprocess, sys, time
    from dataclasses import replace
    from pathlib import Path
    import numpy as np
    from arrayhost import ArrayManager

    N = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))

    def usage(pid):
        status = Path(f"/proc/{pid}/status").read_text()
        rss = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        threads = len(os.listdir(f"/proc/{pid}/task"))
        mapped = sum("memfd:arrayhost" in line for line in Path(f"/proc/{pid}/maps").read_text().splitlines())
        return len(os.listdir(f"/proc/{pid}/fd")), threads, mapped, rss // 1024

    def wait(manager):
        deadline = time.monotonic() + 60
        while manager.statistics().n_arrays:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def make(manager, n):
        arrays = [manager.full(1 + i % 40, float(i)) for i in range(n)]
        assert all(a[-1] == i for i, a in enumerate(arrays))
        return arrays

    READER = "\\n".join([
        "import os, pickle, sys",
        "arrays = pickle.load(sys.stdin.buffer)",
        "assert all(a[0] == i * int(sys.argv[1]) for i, a in enumerate(arrays))",
        "maps = open('/proc/self/maps').read().count('memfd:arrayhost:small')",
        "print(len(arrays), maps, len(os.listdir('/proc/self/fd')))",
    ])

    if __name__ == "__main__":
        with ArrayManager(handle_grace=0.0) as manager:
            host = manager.statistics().pid
            make(manager, 100)
            step = N // 500
            before = usage(os.getpid()), usage(host), manager.statistics()
            arrays = make(manager, N)
            full = usage(os.getpid()), usage(host), manager.statistics()
            assert full[2].n_arrays == N
            reader = subprocess.run([sys.executable, "-c", READER, str(step)], input=pickle.dumps(arrays[::step]),
                                    capture_output=True, check=True)
            print("other", reader.stdout.decode())
            for a in arrays[::step]:
                a += 1
            assert all(arrays[i][0] == i + (i % step == 0) for i in range(0, N, 7))
            del a, arrays
            wait(manager)
            again = make(manager, N // 10)
            del again
            wait(manager)
            after = usage(os.getpid()), usage(host), manager.statistics()
            for when, (client, server, statistics) in (("before", before), ("full", full), ("after", after)):
                print(when, *client, *server, statistics.n_bytes, statistics.n_slots)
"""


@pytest.mark.slow
@pytest.mark.watchdog(200)
def test_a_hundred_thousand_at_once_under_1024_descriptors() -> None:
    """In the default run fewer of them; ARRAYHOST_MANY=100000 for all."""
    number = int(os.environ.get("ARRAYHOST_MANY", "10000"))
    done = run_python(MANY, number, timeout=180)
    print(done.stdout)
    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines() if line)
    before, full, after = ([int(part) for part in lines[when].split()] for when in ("before", "full", "after"))
    n_read, n_mapped, n_fds = map(int, lines["other"].split())
    assert n_read >= 500
    assert n_mapped <= 40
    assert n_fds <= 80
    for client_or_host in (0, 4):
        fds, threads, mapped, _ = full[client_or_host : client_or_host + 4]
        assert fds <= 200
        assert mapped <= 60
        assert threads == before[client_or_host + 1] == after[client_or_host + 1]
    # Nothing is left but one shared segment, on either side; rows of the control table are used again.
    # Each lock file is opened when one of its rows is first locked, and stays open.
    assert after[0] <= before[0] + 2 + N_LOCK_FILES
    assert after[4] <= before[4] + 2 + N_LOCK_FILES
    assert after[2] <= before[2] + 2
    assert after[6] <= before[6] + 2
    assert after[8] == 0
    assert after[9] == 0


def test_a_cycle_of_create_and_drop_maps_nothing_anew() -> None:
    with ArrayManager() as manager:
        kept = manager.ones(3)
        for _ in range(3):
            manager.ones(5)
        before = round_trips()
        addresses = {np.asarray(manager.zeros(5)).__array_interface__["data"][0] >> 20 for _ in range(200)}
        assert round_trips() - before == 200
        assert len(addresses) <= 2
        assert_same(kept.copy(), np.ones(3))


def test_an_ndarray_of_the_memory_keeps_the_array() -> None:
    """Its place would be given to another one otherwise."""
    with ArrayManager() as manager:
        x = np.asarray(manager.full(5, 7.0))
        part = np.asarray(manager.full((3, 4), 2.0))[1:, ::2]
        others = [manager.full(5, float(i)) for i in range(300)]
        assert_same(x, np.full(5, 7.0))
        assert_same(part, np.full((2, 2), 2.0))
        assert manager.statistics().n_arrays == 302
        del x, part
        others.append(manager.ones(1))
        wait_until(lambda: manager.statistics().n_arrays == 301, what="the end of two arrays")


def test_views_of_neighbours_are_told_apart() -> None:
    """Both operands lie in one segment, and the result consists of views of both."""
    with ArrayManager() as manager:
        a, b = manager.zeros((3, 1)), manager.zeros((1, 4))
        x, y = np.broadcast_arrays(a, b)
        assert (x.shape, y.shape) == ((3, 4), (3, 4))
        b[0, 2] = 5
        assert_same(np.array(y), np.broadcast_to(np.array([0.0, 0, 5, 0]), (3, 4)).copy())
        assert y.version == b.version == 2
        assert x.version == a.version == 0


def test_a_handle_does_not_reach_a_neighbour() -> None:
    with ArrayManager() as manager:
        a, secret = manager.zeros(8), manager.full(8, 99.0)
        source = a._source
        honest = a.layout
        for offset in (64, -64, 8):
            wrong = source.handle_for(type(honest)(offset, (8,), (8,), honest.dtype))
            with pytest.raises(ProtocolError):
                source.link.attach(pack_handle(wrong))
        # A handle that lies about the size of its place, too: the host knows better, and so does this process.
        liar = type(wrong)(*(getattr(wrong, name) for name in ("ident", "slot", "generation", "segment")), 0, 4096,
                           type(honest)(64, (8,), (8,), honest.dtype))  # fmt: skip
        with pytest.raises(ProtocolError):
            source.link.attach(pack_handle(liar))
        with pytest.raises(ProtocolError):
            source.link.request(Kind.SNAPSHOT, [[liar], None])
        assert_same(secret.copy(), np.full(8, 99.0))
        assert_same(a.copy(), np.zeros(8))


def test_a_reader_without_a_lease_never_sees_the_successors_data() -> None:
    """The host takes the array away, as from a session that it had to drop, and gives its place to another."""
    with ArrayManager() as manager:
        a = manager.full(4, 7.0)
        ident = a._source.ident
        a._source.link._channel.tell(Kind.RELEASE, [[ident, 1]])
        while manager.statistics().n_arrays:
            pass
        successors = [manager.full(4, 1000.0 + i) for i in range(50)]
        for read in (lambda: a[0], a.sum, a.copy, lambda: a + 1, lambda: np.array(a)):
            with pytest.raises(StaleProxyError):
                read()
        with pytest.raises(StaleProxyError):
            a[0] = 1
        with pytest.raises(StaleProxyError), a.write():
            pass
        a._source.count[0] = 0
        assert [float(b[0]) for b in successors] == [1000.0 + i for i in range(50)]


LIMITED = """
    import os, resource, sys
    import numpy as np
    from arrayhost import ArrayManager, DescriptorLimitError, connect

    def leave(n):
        taken = []
        try:
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            for _ in range(n):
                os.close(taken.pop())
        return taken

    def fill_host(n):
        global taken
        taken = leave(n)
        return len(taken)

    def empty_host():
        for fd in taken:
            os.close(fd)

    class Filler:
        def fill(self, n):
            return fill_host(n)

        def empty(self):
            empty_host()

    class Arrays(ArrayManager):
        pass

    Arrays.register("Filler", Filler)

    if __name__ == "__main__":
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
        with Arrays() as manager:
            a = manager.ones(3)
            large = np.ones(100_000)
            manager.array(large)
            for n in range(3):
                taken = leave(n)
                for attempt in (lambda: manager.array(large), lambda: manager.ones(100_000)):
                    try:
                        kept = attempt()
                    except DescriptorLimitError as error:
                        assert error.pid == os.getpid() and "ulimit -n" in str(error), error
                        print("client", n, error.n_open)
                for fd in taken:
                    os.close(fd)
                a[0] = n
                assert a[0] == n
            filler = manager.Filler()
            host = manager.statistics().pid
            for n in range(3):
                filler.fill(n)
                for attempt in (lambda: manager.array(large), lambda: manager.ones(100_000)):
                    try:
                        kept = attempt()
                    except DescriptorLimitError as error:
                        assert error.pid == host and "ulimit -n" in str(error), error
                        print("host", n, error.n_open)
                if n == 0:
                    import threading
                    def other():
                        try:
                            manager.ones(3)
                        except DescriptorLimitError as error:
                            assert error.pid == host, error
                            print("connect", n, error.n_open)
                    thread = threading.Thread(target=other)
                    thread.start()
                    thread.join()
                filler.empty()
                a[1] = n
                assert a[1] == n
                assert manager.array(large).sum() == 100_000
            kept = None
            while manager.statistics().n_arrays > 1:
                pass
"""


def test_at_the_descriptor_limit_client_and_host_say_so() -> None:
    done = run_python(LIMITED, timeout=60)
    print(done.stdout)
    told = [line.split() for line in done.stdout.splitlines()]
    assert {who for who, _, _ in told} == {"client", "host", "connect"}
    assert {limit for _, _, limit in told} == {"256"}
    assert [number for who, number, _ in told if who == "client"][:2] == ["0", "0"]
    assert [number for who, number, _ in told if who == "host"][:2] == ["0", "0"]
