"""``nkblas run``: run a program as python does, with nkblas under NumPy.

The program's output, tracebacks and exit status are those that it has under python.
"""

import atexit
import builtins
import contextlib
import gc
import os
import pkgutil
import runpy
import sys
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING

from nkblas.api.patch import patch
from nkblas.system import config

from .output import format_count, print_error

if TYPE_CHECKING:
    import argparse

    from nkblas.inspect.record import Recording


def run(options: "argparse.Namespace") -> int:
    """Run a script or a module as ``__main__``.

    Exceptions of the program are printed here, so that the traceback starts with its own frames;
    `SystemExit` and `KeyboardInterrupt` pass.
    """
    is_module = options.module is not None
    program = options.module if is_module else options.script
    if program[:1] == ["--"]:
        program = program[1:]
    if not program:
        print_error("run: expected SCRIPT or -m MODULE")
        return 2
    if not is_module and not os.path.exists(program[0]):
        print_error(f"run: {program[0]}: no such file")
        return 2
    config.patch_children()
    if options.record is not None or options.report:
        try:
            _record_until_exit(options.record, options.report)
        except OSError as error:
            print_error(f"{options.record}: {error.strerror}")
            return 1
    patch()
    # NumPy and nkblas stay to the end: the garbage collector, which goes through everything when
    # the program exits, need not look for garbage among them (that took 10 ms)
    gc.freeze()
    _set_argv_and_path(program, is_module)
    try:
        _run_program(program[0], is_module)
    except (SystemExit, KeyboardInterrupt):
        raise  # the interpreter handles them
    except BaseException as error:
        trace = _program_traceback(error.__traceback__)
        if trace is None and isinstance(error, ImportError):
            print_error(f"run: {error}")  # there is no such module
        else:
            sys.excepthook(type(error), error.with_traceback(trace), trace)
        return 1
    return 0


def _set_argv_and_path(program: list[str], is_module: bool) -> None:
    """Set ``sys.argv`` and the first entry of ``sys.path`` as python does."""
    sys.argv = program
    # with a safe path (python -P), python adds no such entry
    if not getattr(sys.flags, "safe_path", sys.flags.isolated):
        script_folder = os.path.dirname(os.path.realpath(program[0]))
        sys.path[0] = os.getcwd() if is_module else script_folder


def _run_program(name: str, is_module: bool) -> None:
    if is_module:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    elif pkgutil.get_importer(name):  # a folder or a zip file
        runpy.run_path(name, run_name="__main__")
    else:
        _run_file(name)


def _run_file(path: str) -> None:
    """Run a script. With `runpy.run_path`, ``__file__`` or ``sys.argv[0]`` would differ."""
    main = ModuleType("__main__")
    main.__file__ = os.path.abspath(path)
    main.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = main
    with open(path, "rb") as file:
        code = compile(file.read(), main.__file__, "exec", dont_inherit=True)
    exec(code, main.__dict__)


def _program_traceback(trace: TracebackType | None) -> TracebackType | None:
    """A traceback without the frames of this module and of `runpy`."""
    while trace and trace.tb_frame.f_globals.get("__name__") in (__name__, "runpy"):
        trace = trace.tb_next
    return trace


def _record_until_exit(path: str | None, with_report: bool) -> None:
    """Record the products from now on; write and report them when the process exits.

    Those of the processes that the program starts are added.

    Parameters
    ----------
    path : str or None
        The file to write.
    with_report : bool
        Whether to print a report on standard error.

    Raises
    ------
    OSError
        The file can't be written. This is tried first: the program may run for hours.
    """
    if path is not None:
        path = os.path.abspath(path)  # the program may change the working directory
        with open(path, "a"):
            pass
    # imports the planner: only with --record or --report
    from nkblas.inspect.children import Children
    from nkblas.inspect.record import record

    stack = contextlib.ExitStack()
    recording = stack.enter_context(record())
    children = Children()
    process = os.getpid()

    def finish() -> None:
        if os.getpid() != process:
            return  # a child that the program forked
        stack.close()
        others = children.collect()
        everything = recording.plus(others.recording, others.recording.seconds)
        if path is not None:
            _save(everything, path)
        if with_report:
            # only with --report, and only now: the program starts without it
            from nkblas.inspect.report import report

            print(report(everything, others), file=sys.stderr)

    # registered before the program starts: it is called after the program's own exit functions,
    # and after all threads have ended
    atexit.register(finish)


def _save(recording: "Recording", path: str) -> None:
    try:
        recording.save(path)
    except OSError as error:
        print_error(f"{path}: {error.strerror}: the recording is lost")
    else:
        products = format_count(sum(recording.values()), "product")
        print_error(f"{path}: {format_count(len(recording), 'problem')}, {products} recorded")
