"""nkblas as a guest in a program: its children, descriptors, signals and warnings."""

import os
from pathlib import Path
from typing import Any

import pytest
from support import run

ONE, OTHER = (70, 80, 90), (75, 85, 95)
"""Shapes whose kernels have to be compiled, each for itself."""


def run_cold(folder: Path, program: str, *options: str) -> Any:
    """The report of a program with an empty cache, which leaves no product to NumPy."""
    report, errors = run(program, *options, NKBLAS_CACHE_DIR=folder)
    assert errors == ""
    assert report["fallbacks"] == 0
    assert report["kernels_compiled"] > 0
    return report


def test_no_child_is_left(tmp_path: Path) -> None:
    """A loop that waits for all children does not wait for the compile server."""
    program = f"""
        improve({ONE})
        start = time.monotonic()
        try:
            os.wait()
            children = True
        except ChildProcessError:
            children = False
        report(children=children, seconds=time.monotonic() - start)
    """
    report = run_cold(tmp_path, program)
    assert not report["children"]
    assert report["seconds"] < 10


def test_many_open_files(tmp_path: Path) -> None:
    program = f"""
        import resource
        _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, 4096), limit))
        files = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
        improve({ONE})
        multiply({ONE})
        report(highest=max(files))
    """
    assert run_cold(tmp_path, program)["highest"] > 1024


CLOSE_ALL = f"""
    improve({ONE})
    os.closerange(3, 1000)
"""


def test_closed_descriptors(tmp_path: Path) -> None:
    """The program closes descriptors that it does not know: another compile server is started."""
    run_cold(
        tmp_path, CLOSE_ALL + f"    improve({OTHER})\n    multiply({ONE}, {OTHER})\n    report()"
    )


def test_descriptors_of_other_files(tmp_path: Path) -> None:
    """Files that have the numbers of nkblas's descriptors now are neither written nor closed."""
    folder = tmp_path / "files"
    folder.mkdir()
    program = f"""
    files = [os.open(r"{folder}/" + str(i), os.O_RDWR | os.O_CREAT) for i in range(20)]
    improve({OTHER})
    multiply({ONE}, {OTHER})
    report(sizes=[os.fstat(file).st_size for file in files])
    """
    assert not any(run_cold(tmp_path / "cache", CLOSE_ALL + program)["sizes"])


def test_default_action_of_sigpipe(tmp_path: Path) -> None:
    """As command-line tools have it: a compile server that has ended does not end the program."""
    program = f"""
        import signal
        from nkblas.runtime.kernels import kernels
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        improve({ONE})
        server = kernels._background_compiler.server
        if server is not None:
            os.kill(server.pid, signal.SIGKILL)
            time.sleep(0.2)
        improve({OTHER})
        multiply({ONE}, {OTHER})
        report(killed=server is not None)
    """
    assert run_cold(tmp_path, program)["killed"]


def test_priority_of_the_background(tmp_path: Path) -> None:
    """The program's own threads come first, also where sessions share the CPU equally."""
    program = f"""
        import contextlib
        from nkblas.runtime.kernels import kernels
        improve({ONE})
        multiply({ONE})
        server = kernels._background_compiler.server
        group = f"/proc/{{server.pid}}/autogroup"
        with contextlib.suppress(OSError):  # the system may have no autogroups
            group = open(group).read()
        report(niceness=os.getpriority(os.PRIO_PROCESS, server.pid), group=group)
    """
    stats = run_cold(tmp_path, program)
    assert stats["niceness"] == 19
    assert stats["group"].startswith("/proc/") or stats["group"].endswith("nice 19\n")


def test_warnings_are_errors(tmp_path: Path) -> None:
    """Nothing is left open, from the first product to the end of the process."""
    run_cold(tmp_path, f"improve({ONE}); multiply({ONE}); report()", "-W", "error", "-X", "dev")


MOMENTS = {
    "global": "keep = Last()",
    "builtins": "import builtins; builtins.keep = Last()",
    "cycle": "keep = Last(); keep.itself = keep; del keep",
    "module": "import types; sys.modules['kept'] = types.SimpleNamespace(last=Last())",
    "atexit": "import atexit; atexit.register(Last().product)",
    "thread": "keep = threading.local(); keep.last = Last()",
}
"""What the last product of a program belongs to, and with that, when it runs."""

CALLS = {
    "matmul": "{module}.matmul(a, b)",
    "dot": "{module}.dot(a, b)",
    "tensordot": "{module}.tensordot(a, b, 1)",
    "einsum": "{module}.einsum('ij,jk->ik', a, b)",
    "strided": "{module}.matmul(a[::1, ::-1], b[::-1])",
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("module", ["nkblas", "np"])
def test_products_at_the_end(module: str, moment: str, tmp_path: Path) -> None:
    """Of a new shape, while the interpreter ends: they are right, and there is no message."""
    functions = ", ".join(f"lambda: {call.format(module=module)}" for call in CALLS.values())
    program = f"""
        nkblas.patch()
        a, b = np.full((17, 19), 2.0), np.full((19, 23), 3.0)
        expected = np.full((17, 23), 114.0).tobytes()

        class Last:
            def product(self, functions=({functions}), expected=expected, write=os.write):
                for function in functions:
                    write(2, b"right " if function().tobytes() == expected else b"wrong ")

            __del__ = product

        multiply((5, 6, 7))
        report()
        {MOMENTS[moment]}
    """
    _, errors = run(program, NKBLAS_CACHE_DIR=tmp_path)
    times = 2 if moment == "atexit" else 1  # then the object ends too
    assert errors == times * len(CALLS) * "right "


def test_home_in_the_cache_folder(tmp_path: Path) -> None:
    run("multiply((5, 6, 7)); report()", NKBLAS_CACHE_DIR="~/kernels", HOME=tmp_path)
    assert os.listdir(tmp_path) == ["kernels"]
