"""The command line: ``nkblas``, or ``python -m nkblas``.

Exit status: 0; 1 if something failed or was found wrong; 2 if the command line is wrong.
"""

import argparse
import atexit
import builtins
import contextlib
import os
import pkgutil
import runpy
import sys
import time
from collections.abc import Iterable, Sequence
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, NoReturn

from nkblas import __version__
from nkblas.base.isa import ISAS
from nkblas.system.cpu import cpu

if TYPE_CHECKING:
    from nkblas.inspect.record import Recording

FORMS = {
    "mlir": "what the generator builds",
    "lowered": "the same after nkblas's passes, in the LLVM dialect",
    "llvm": "what LLVM gets",
    "asm": "the machine code",
}


class CommandError(Exception):
    """A command can't be done: the message for the user, and the exit status."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class Parser(argparse.ArgumentParser):
    """One whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one command; its exit status."""
    try:
        try:
            options = parser().parse_args(arguments)
            status: int = 0 if options.do is run else options.do(options)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # who reads has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except CommandError as error:
        say(str(error))
        return error.status
    except OSError as error:
        say(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return 1
    except RuntimeError as error:
        say(str(error))
        return 1
    return run(options) if options.do is run else status


def say(message: str) -> None:
    """Tell the user, beside what a command prints."""
    print(f"nkblas: {message}", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    top = Parser("nkblas", description="Matrix products on kernels generated for CPU and shape.")
    top.add_argument("--version", action="version", version=f"nkblas {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)

    def command(name, do, text, among=commands, usage=None):
        made = among.add_parser(name, help=text, description=text, usage=usage, allow_abbrev=False)
        made.set_defaults(do=do)
        return made.add_argument

    command("info", info, "what nkblas finds here: the CPU, the compiler, the cache")

    usage = "nkblas run [-h] [--record FILE] [--report] (SCRIPT | -m MODULE) [ARGS ...]"
    text = "run a script or a module as python would, with nkblas under NumPy"
    add = command("run", run, text, usage=usage)
    add("--record", metavar="FILE", help="write the problems that it calls there, for warmup, tune")
    add("--report", action="store_true", help="at the end, tell what ran and compare with NumPy")
    add("-m", dest="module", nargs=argparse.REMAINDER, help="run a module; the rest is for it")
    add("script", nargs=argparse.REMAINDER, help="the script; the rest is for it")

    what = "a problem such as 128x768x3072:f32, or a file that run --record wrote"
    add = command("warmup", warmup, "get ready for problems: measure plans, compile kernels")
    add("--no-tune", dest="tune", action="store_false", help="compile, measure nothing")
    add("--quiet", action="store_true", help="show no progress")
    add("what", nargs="+", metavar="WHAT", help=what)

    add = command("tune", tune, "measure plans for problems, and keep the best")
    add("--force", action="store_true", help="also where a plan was measured before")
    add("--seconds", type=seconds, metavar="S", help="at most so long for each problem")
    add("--quiet", action="store_true", help="show no progress")
    add("what", nargs="+", metavar="WHAT", help=what)

    add = command("inspect", inspect, "the plan of a problem, or the code that is generated for it")
    add("problem", metavar="PROBLEM", help="such as 128x768x3072:f32")
    forms = "; ".join(f"{name}: {text}" for name, text in FORMS.items())
    add("--emit", choices=FORMS, help=f"show the code of the plan's kernels ({forms})")
    add("--isa", choices=ISAS, help="for this instruction set, also if the CPU lacks it")
    add("--kernel", metavar="SYMBOL", help="only this one's code")

    cache = commands.add_parser("cache", help="what is kept on disk: kernels and tuned plans")
    actions = cache.add_subparsers(metavar="ACTION", required=True, parser_class=Parser)
    command("list", cache_list, "show what there is", actions)
    command("verify", cache_verify, "find and mend what is damaged or left over", actions)
    text = "verify, and remove what this version can't use and what exceeds NKBLAS_CACHE_SIZE"
    command("prune", cache_prune, text, actions)
    command("clear", cache_clear, "remove all kernels and tuned plans", actions)
    add = command("export", cache_export, "write the tuned plans of this machine", actions)
    add("file", metavar="FILE", help="- is the standard output")
    add = command("import", cache_import, "take over plans from an exported file", actions)
    add("file", metavar="FILE")
    add("--force", action="store_true", help="also plans that were measured on another machine")
    return top


def seconds(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError(text)
    return number


def info(options: argparse.Namespace) -> int:
    from nkblas.inspect.show_config import show_config
    from nkblas.planning import measured_plans

    show_config()
    tuned, shipped = (
        len(measured_plans.read(measured_plans.path(cpu, x)))
        for x in (measured_plans.TUNED, measured_plans.SHIPPED)
    )
    lines = {
        "machine": measured_plans.machine(cpu),
        "plans": f"{tuned} tuned, {shipped} shipped for this machine; a model makes all others",
        "features": " ".join(sorted(cpu.features)),
    }
    print("\n".join(f"{name:9}  {value}" for name, value in lines.items()))
    return 0


def run(options: argparse.Namespace) -> int:
    """Run a script or a module as ``__main__``, with nkblas under NumPy. What it raises is its
    own affair."""
    module = options.module is not None
    program = options.module if module else options.script
    if program[:1] == ["--"]:
        program = program[1:]
    if not program:
        say("run: expected SCRIPT or -m MODULE")
        return 2
    if not module and not os.path.exists(program[0]):
        say(f"run: {program[0]}: no such file")
        return 2
    if options.record is not None or options.report:
        try:
            record_to(options.record, options.report)
        except OSError as error:
            say(f"{options.record}: {error.strerror}")
            return 1
    from nkblas.api.patch import patch

    patch()
    sys.argv = program
    if not getattr(sys.flags, "safe_path", sys.flags.isolated):  # else there is none to replace
        script_folder = os.path.dirname(os.path.realpath(program[0]))
        sys.path[0] = os.getcwd() if module else script_folder
    try:
        if module:
            runpy.run_module(program[0], run_name="__main__", alter_sys=True)
        elif pkgutil.get_importer(program[0]):  # a folder or a zip file
            runpy.run_path(program[0], run_name="__main__")
        else:
            run_file(program[0])
    except (SystemExit, KeyboardInterrupt):
        raise  # the interpreter knows what to do
    except BaseException as error:
        trace = program_traceback(error.__traceback__)
        if trace is None and isinstance(error, ImportError):
            say(f"run: {error}")  # there is no such module
        else:
            sys.excepthook(type(error), error.with_traceback(trace), trace)
        return 1
    return 0


def run_file(path: str) -> None:
    """Run a script. (With `runpy`, either ``__file__`` or ``sys.argv[0]`` is not as usual.)"""
    main = ModuleType("__main__")
    main.__file__ = os.path.abspath(path)
    main.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = main
    with open(path, "rb") as file:
        code = compile(file.read(), main.__file__, "exec", dont_inherit=True)
    exec(code, main.__dict__)


def record_to(path: str | None, reported: bool) -> None:
    """Record what is called from now on until the process ends; then write it, report it."""
    from nkblas.inspect.record import record

    if path is not None:
        path = os.path.abspath(path)  # the script may go elsewhere
        with open(path, "a"):
            pass  # better told now than after the script's hours
    stack = contextlib.ExitStack()
    recording = stack.enter_context(record())
    process = os.getpid()

    def end() -> None:
        if os.getpid() != process:
            return  # a child of the script's
        stack.close()
        if path is not None:
            save(recording, path)
        if reported:
            from nkblas.inspect.report import report

            print(report(recording), file=sys.stderr)

    atexit.register(end)  # after all threads, and after what the script itself registers


def save(recording: "Recording", path: str) -> None:
    try:
        recording.save(path)
    except OSError as error:
        say(f"{path}: {error.strerror}: the recording is lost")
    else:
        products = counted(sum(recording.values()), "product")
        say(f"{path}: {counted(len(recording), 'problem')}, {products} recorded")


def program_traceback(trace: TracebackType | None) -> TracebackType | None:
    """A traceback without the frames that led to the program."""
    while trace and trace.tb_frame.f_globals.get("__name__") in (__name__, "runpy"):
        trace = trace.tb_next
    return trace


def problems(what: Iterable[str]) -> list[str]:
    """The problems that are named or recorded in files, as text."""
    from nkblas.base.problem import Problem, parse
    from nkblas.inspect.record import Recording

    found: list[Problem] = []
    for text in what:
        try:
            found.append(parse(text))
            continue
        except ValueError as error:
            reason = str(error)
        if not os.path.exists(text):
            raise CommandError(f"{reason}; nor is there such a file", 2)
        try:
            found += Recording.load(text)
        except ValueError as error:
            raise CommandError(str(error)) from None
    return [str(problem) for problem in dict.fromkeys(found)]


def warmup(options: argparse.Namespace) -> int:
    found = problems(options.what)
    from nkblas.inspect.tune import warmup

    warmup(found, tune=options.tune, progress=not options.quiet)
    return 0


def tune(options: argparse.Namespace) -> int:
    found = problems(options.what)
    from nkblas.inspect.tune import warmup

    more = {} if options.seconds is None else {"seconds": options.seconds}
    warmup(found, force=options.force, progress=not options.quiet, **more)
    return 0


def inspect(options: argparse.Namespace) -> int:
    from nkblas.base.problem import parse
    from nkblas.inspect.explain import describe
    from nkblas.planning.measured_plans import best_known_plan
    from nkblas.runtime.abi import canonical

    try:
        problem = canonical(parse(options.problem))
    except ValueError as error:
        raise CommandError(str(error), 2) from None
    target = cpu._replace(isa=ISAS[options.isa]) if options.isa else cpu
    plan = best_known_plan(problem, target)
    if options.emit is None:
        if options.kernel is not None:
            raise CommandError("--kernel: expected --emit too", 2)
        print(describe(plan, target))
        return 0
    symbols = [spec.symbol for spec in plan.kernels]
    if options.kernel not in (None, *symbols):
        message = f"--kernel: got {options.kernel!r}, expected one of {', '.join(symbols)}"
        raise CommandError(message, 2)
    try:
        from nkblas.codegen.lowering import emit
    except ImportError as error:
        raise CommandError(f"without MLIR there is no code to show: {error}") from None
    first = True
    for spec in plan.kernels:
        if options.kernel in (None, spec.symbol):
            if not first:  # MLIR's own tools split a file there
                print("\n// -----\n" if options.emit in ("mlir", "lowered") else "")
            first = False
            print(emit.FORMS[options.emit](spec).strip("\n"))
    return 0


def cache_list(options: argparse.Namespace) -> int:
    from nkblas.cache import maintenance
    from nkblas.cache.store import Store
    from nkblas.inspect.explain import duration
    from nkblas.system.config import cache_folder

    store = Store(cache_folder())
    kernels = maintenance.kernels(store)
    total = size(sum(kernel.size for kernel in kernels))
    print(f"{store.folder.path}: {counted(len(kernels), 'kernel')}, {total}")
    rows = []
    for kernel in kernels:
        state = kernel.fault or ("" if kernel.current else "of another version")
        rows.append((kernel.symbol or kernel.key, size(kernel.size), age(kernel.used), state))
    show(rows)
    for path, isa in maintenance.plan_files().items():
        found, faults = maintenance.read_plans(path, isa, cpu)
        damaged = f", {counted(len(faults), 'damaged line')}" * bool(faults)
        print(f"{path}: {counted(len(found), 'tuned plan')}{damaged}")
        show(
            (str(problem), duration(plan.nanoseconds), "", str(plan))
            for problem, plan in sorted(found.items())
        )
    return 0


def show(rows: Iterable[tuple[str, str, str, str]]) -> None:
    """Print a table: numbers to the right."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, number, other, text in rows:
        line = f"  {name:{widths[0]}}  {number:>{widths[1]}}  {other:>{widths[2]}}  {text}"
        print(line.rstrip())


def counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def size(count: int) -> str:
    """A number of bytes to read."""
    return f"{count / 1024:.1f} KiB" if count < 1 << 20 else f"{count / (1 << 20):.1f} MiB"


def age(moment: float) -> str:
    """How long ago a moment was, to read."""
    passed = max(0.0, time.time() - moment)
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if passed >= 2 * length:
            return f"{passed / length:.0f} {unit}"
    return f"{passed:.0f} s"


def cache_verify(options: argparse.Namespace) -> int:
    from nkblas.cache import maintenance
    from nkblas.cache.store import Store
    from nkblas.system.config import cache_folder

    store = Store(cache_folder())
    faults = 0
    for fault in maintenance.verify(store, cpu):
        print(fault)
        faults += 1
    if faults:
        print(f"{counted(faults, 'fault')} in {cache_folder()}")
    else:
        tuned = (maintenance.read_plans(*file, cpu)[0] for file in maintenance.plan_files().items())
        kernels = counted(len(maintenance.kernels(store)), "kernel")
        print(f"{kernels} and {counted(sum(map(len, tuned)), 'tuned plan')}: nothing is damaged")
    return int(bool(faults))


def cache_prune(options: argparse.Namespace) -> int:
    from nkblas.cache import maintenance
    from nkblas.cache.store import Store
    from nkblas.system.config import cache_folder

    removed = 0
    for fault in maintenance.prune(Store(cache_folder()), cpu):
        print(fault)
        removed += 1
    if not removed:
        print(f"nothing to remove in {cache_folder()}")
    return 0


def cache_clear(options: argparse.Namespace) -> int:
    from nkblas.cache import maintenance
    from nkblas.cache.store import Store
    from nkblas.system.config import cache_folder

    files = maintenance.clear(Store(cache_folder()))
    print(f"removed {counted(len(files), 'file')} from {cache_folder()}")
    return 0


def cache_export(options: argparse.Namespace) -> int:
    from nkblas.cache import maintenance
    from nkblas.planning import measured_plans

    path = measured_plans.path(cpu, measured_plans.TUNED)
    try:
        found, faults = maintenance.read_plans(path, cpu.isa.name, cpu)
    except FileNotFoundError:
        found, faults = {}, []
    for fault in faults:
        say(f"{path}, {fault}")
    if not found:
        raise CommandError(
            f"no plans were tuned for {measured_plans.machine(cpu)}: {path} has none"
        )
    text = maintenance.to_text(found.values(), cpu)
    if options.file == "-":
        print(text, end="")
        return 0
    with open(options.file, "w", encoding="utf-8") as file:
        file.write(text)
    print(f"{options.file}: {counted(len(found), 'plan')} for {measured_plans.machine(cpu)}")
    return 0


def cache_import(options: argparse.Namespace) -> int:
    from nkblas.cache import maintenance
    from nkblas.planning import measured_plans

    with open(options.file, encoding="utf-8", errors="replace") as file:
        lines = file.readlines()
    here, there = measured_plans.machine(cpu), maintenance.machine_of(lines)
    if there != here and not options.force:
        origin = f"its plans are for {there}" if there else "it does not name its plans' machine"
        raise CommandError(f"{options.file}: {origin}, and this is {here} (--force takes them)")
    good, faults = measured_plans.check(lines, cpu)
    for fault in faults:
        say(f"{options.file}, {fault}")
    if good:
        measured_plans.append(
            measured_plans.path(cpu, measured_plans.TUNED),
            map(measured_plans.to_line, good.values()),
        )
    print(f"{counted(len(good), 'plan')} imported for {here}, {len(faults)} refused")
    return int(bool(faults))
