"""How processes that use hosted arrays end: nothing left, and nothing said that the program did not say."""

import pytest

from tests.support import run_python

# Python's own debug mode and every warning an error, here and in spawned children.
STRICT = {"PYTHONDEVMODE": "1", "PYTHONWARNINGS": "error"}


def test_spawned_workers_and_unclosed_connections_end_quietly() -> None:
    done = run_python(
        """
        import concurrent.futures, multiprocessing
        import arrayhost

        def total(address, a):
            global kept
            kept = arrayhost.connect(address), a  # until the interpreter's end
            return float(a.sum())

        if __name__ == "__main__":
            ctx = multiprocessing.get_context("spawn")
            with arrayhost.ArrayManager(ctx=ctx) as manager:
                a = manager.ones(10)
                with concurrent.futures.ProcessPoolExecutor(1, mp_context=ctx) as executor:
                    print(executor.submit(total, manager.address, a).result())
                pool = ctx.Pool(1)
                print(pool.apply(total, (manager.address, a[:5])))
                pool.close()
                pool.join()
        """,
        env=STRICT,
        timeout=60,
    )
    assert done.stdout.split() == ["10.0", "5.0"]
    assert done.stderr == ""


@pytest.mark.parametrize(("end", "status"), [("", 0), ("sys.exit(3)", 3), ("a.write().__enter__()", 0)])
def test_programs_that_forget_to_shut_down_end_quietly(end: str, status: int) -> None:
    done = run_python(
        f"""
        import sys
        from arrayhost import ArrayManager

        manager = ArrayManager()
        manager.start()
        a = manager.ones(10)
        print(a.sum())
        {end}
        """,
        env=STRICT,
        check=False,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (status, "10.0", "")


def test_under_spawn_a_function_of_no_file_is_refused_before_a_host_is_started() -> None:
    done = run_python(
        """
        import subprocess, sys
        program = '''
        import multiprocessing
        from arrayhost import ArrayManager

        def one():
            return 1

        ArrayManager.register("one", one)
        ArrayManager(ctx=multiprocessing.get_context("spawn")).start()
        '''
        import textwrap
        sys.exit(subprocess.run([sys.executable, "-c", textwrap.dedent(program)]).returncode)
        """,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("arrayhost.errors.ArgumentEncodingError: type 'one'")
    assert "no file" in done.stderr


def test_a_host_without_descriptors_says_so() -> None:
    done = run_python(
        """
        import resource
        from arrayhost import ArrayManager, DescriptorLimitError

        resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
        manager = ArrayManager()
        try:
            manager.start()
        except DescriptorLimitError as error:
            print(error)
        """
    )
    assert "ulimit -n" in done.stdout
