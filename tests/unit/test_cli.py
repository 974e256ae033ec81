"""The command line as users run it, in processes of its own: exit statuses and output."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import ROOT, environment

import nkblas
from nkblas.base.isa import ISAS
from nkblas.base.problem import parse
from nkblas.cache import maintenance
from nkblas.cache.store import KERNEL_FILE, Store
from nkblas.cli import command_line, inspect_command
from nkblas.cli.arguments import FORMS
from nkblas.inspect import tune as tuner
from nkblas.planning import cost_model, measured_plans
from nkblas.planning.microarchitecture import machine
from nkblas.planning.plan import Plan

CPU = nkblas.cpu
MACHINE = machine(CPU)
NKBLAS = [sys.executable, "-m", "nkblas"]

Completed = subprocess.CompletedProcess[str]


def run_command(*command: Any, cwd: Path | None = None, **changes: Any) -> Completed:
    """Run a program with changes to the environment."""
    return subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=environment(**changes),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def run_nkblas(*arguments: Any, **options: Any) -> Completed:
    return run_command(*NKBLAS, *arguments, **options)


def assert_refused(done: Completed, status: int, *words: str) -> None:
    """The command prints one line of explanation, and no traceback."""
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert all(word in done.stderr for word in ("nkblas", *words)), done.stderr


def test_entry_point() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    assert '[project.scripts]\nnkblas = "nkblas.cli.command_line:main"\n' in project
    assert run_nkblas("--version").stdout == f"nkblas {nkblas.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", ["COMMAND"]),
        ("nonsense", ["nonsense", "inspect"]),
        ("info --nonsense", ["--nonsense"]),
        ("run", ["SCRIPT"]),
        ("run --record", ["--record"]),
        ("run --nonsense script.py", ["--nonsense"]),
        ("run nothing.py", ["nothing.py"]),
        ("warmup", ["PROBLEM"]),
        ("warmup 5x5:f32", ["5x5:f32", "128x768x3072:f32", "file"]),
        ("warmup 5x5x5:f128", ["5x5x5:f128", "float64"]),
        ("warmup 5x5x5:f32 nothing.txt", ["nothing.txt", "file"]),
        ("tune --seconds soon 5x5x5:f32", ["--seconds", "soon"]),
        ("tune --seconds 0 5x5x5:f32", ["--seconds", "0"]),
        ("tune --seconds nan 5x5x5:f32", ["--seconds", "nan"]),
        ("inspect", ["PROBLEM"]),
        ("inspect 5x5:f32", ["5x5:f32", "128x768x3072:f32"]),
        ("inspect 5x5x5:f32 --emit wasm", ["wasm", "asm", "mlir", "lowered", "llvm"]),
        ("inspect 5x5x5:f32 --isa vax", ["vax", *ISAS]),
        ("inspect 5x5x5:f32 --kernel x", ["--kernel", "--emit"]),
        (
            "inspect 5x5x5:f32 --emit asm --kernel x",
            ["'x'", f"microkernel_{CPU.isa.base.name}_float32"],
        ),
        ("cache", ["ACTION"]),
        ("cache burn", ["burn", "prune"]),
        ("cache export", ["FILE"]),
        ("cache import", ["FILE"]),
    ],
)
def test_bad_usage(arguments: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    command = ["nkblas", *arguments.split()]
    try:
        status = command_line.main(command[1:])
    except SystemExit as end:
        status = int(end.code or 0)
    assert_refused(Completed(command, status, *capsys.readouterr()), 2, *words)


@pytest.mark.parametrize("command", ["", "run", "tune", "cache", "cache list"])
def test_help(command: str) -> None:
    done = run_nkblas(*command.split(), "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: nkblas {command}".strip())
    assert done.stderr == ""


def test_info(tmp_path: Path) -> None:
    done = run_nkblas("info", NKBLAS_CACHE_DIR=tmp_path)
    assert done.returncode == 0
    words = [nkblas.__version__, str(CPU), MACHINE, str(tmp_path), *CPU.features]
    assert all(word in done.stdout for word in words), done.stdout


LIMITATIONS: dict[str, tuple[dict[str, str], list[str]]] = {
    "nothing": ({}, []),
    "compiling": ({"NKBLAS_JIT": "never"}, ["NKBLAS_JIT=never", "NumPy"]),
    "linker": ({"PATH": "/nowhere"}, ["a linker", "ld.lld", "each process", "MB"]),
    "folder": ({"NKBLAS_CACHE_DIR": "/proc/nowhere"}, ["/proc/nowhere", "NKBLAS_CACHE_DIR"]),
}


@pytest.mark.parametrize("limitation", LIMITATIONS)
def test_info_lists_limitations(limitation: str, tmp_path: Path) -> None:
    """What is missing, with its cost, and nothing else."""
    changes, words = LIMITATIONS[limitation]
    done = run_nkblas("info", **{"NKBLAS_CACHE_DIR": tmp_path / "cache", **changes})
    assert done.returncode == 0
    lines = [line for line in done.stdout.splitlines() if line.startswith("lacking")]
    assert len(lines) == bool(words), done.stdout
    assert all(word in lines[0] for word in words), lines


# run ----------------------------------------------------------------------------------------------

SCRIPT = """
import atexit, os, sys, threading, time
print(__name__, __file__, sys.argv, sys.path[0], sys.modules["__main__"].__dict__ is globals())
print(os.getcwd(), __spec__ and __spec__.name)
atexit.register(print, "at exit")
def late():
    time.sleep(0.3)
    print("thread")
threading.Thread(target=late).start()
def fail():
    return 1 / 0
words = sys.argv[1:]
if "raise" in words:
    fail()
if "import" in words:
    import no_such_module
if "caught" in words:
    sys.excepthook = lambda kind, *_: print("hook", kind)
    fail()
if "interrupt" in words:
    raise KeyboardInterrupt
if "system" in words:
    os._exit(9)
if "exit" in words:
    code = words[-1]
    sys.exit(int(code) if code.isdigit() else code)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with programs."""
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "script.py").write_text(SCRIPT)
    (tmp_path / "link.py").symlink_to(tmp_path / "below" / "script.py")
    (tmp_path / "module.py").write_text(SCRIPT)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("print('package')\n")
    (tmp_path / "package" / "__main__.py").write_text(SCRIPT)
    (tmp_path / "wrong.py").write_text("def f(:\n")
    (tmp_path / "future.py").write_text("print(__annotations__)\nx: int = 1\ny: undefined\n")
    return tmp_path


@pytest.mark.parametrize(
    "program",
    [
        "below/script.py",
        "below/script.py a -m b --record c --help",
        "link.py",
        "-- below/script.py",
        "below/script.py exit 0",
        "below/script.py exit 7",
        "below/script.py exit message",
        "below/script.py raise",
        "below/script.py import",
        "below/script.py caught",
        "below/script.py system",
        "-m module a -m b",
        "-m module raise",
        "-m package --record exit 3",
        "package exit 4",
        "wrong.py",
        "future.py",
    ],
)
def test_run_as_python(program: str, folder: Path) -> None:
    """The same output, the same traceback, the same exit status."""
    expected = run_command(sys.executable, *program.split(), cwd=folder)
    done = run_nkblas("run", *program.split(), cwd=folder)
    assert done.returncode == expected.returncode
    if program.startswith("package"):  # its folder is on the path under another name
        done.stdout, expected.stdout = (re.sub(r"\S+ True", "", x.stdout) for x in (done, expected))
    assert done.stdout == expected.stdout
    runpy = r'  File "<frozen runpy>".*\n'  # python -m shows it
    assert done.stderr == re.sub(runpy, "", expected.stderr)


def test_run_interrupted(folder: Path) -> None:
    expected = run_command(sys.executable, "below/script.py", "interrupt", cwd=folder)
    done = run_nkblas("run", "below/script.py", "interrupt", cwd=folder)
    assert (done.returncode, done.stdout) == (expected.returncode, expected.stdout)
    assert done.stderr.endswith("KeyboardInterrupt\n")


@pytest.mark.parametrize("module", ["nothing", "nothing.below", "package.nothing"])
def test_run_no_module(module: str, folder: Path) -> None:
    done = run_nkblas("run", "-m", module, cwd=folder)
    assert done.returncode == 1
    assert "nothing" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_run_with_safe_path(folder: Path) -> None:
    """The script's folder is not added to the path."""
    (folder / "path.py").write_text("import sys\nprint(sys.path)\n")
    (expected, done) = (
        run_command(sys.executable, *prefix, "path.py", cwd=folder, PYTHONSAFEPATH="1")
        for prefix in ([], ["-m", "nkblas", "run"])
    )
    if sys.version_info >= (3, 11):
        assert done.stdout == expected.stdout


WORKLOAD = """
import atexit, os, sys, threading, time
import numpy as np
import nkblas

def product(m, n, k, times=1):
    for _ in range(times):
        nkblas.matmul(np.ones((m, k), "f"), np.ones((k, n), "f"))

def late():
    time.sleep(0.3)
    product(2, 3, 4)

product(5, 6, 7, 3)
np.ones((9, 9)) @ np.ones((9, 9))
atexit.register(product, 3, 4, 5)
threading.Thread(target=late).start()
os.chdir("/")
if not os.fork():
    product(8, 8, 8)
    sys.exit(5)
os.wait()
if sys.argv[1:] == ["raise"]:
    raise RuntimeError
if sys.argv[1:]:
    sys.exit(int(sys.argv[1]))
"""


@pytest.mark.parametrize(("end", "status"), [("", 0), ("raise", 1), ("7", 7)])
def test_run_record(end: str, status: int, tmp_path: Path) -> None:
    """However the script ends: the products of all its threads, and of its children."""
    (tmp_path / "workload.py").write_text(WORKLOAD)
    (tmp_path / "shapes.txt").write_text("an older recording\n")
    arguments = ["run", "--record", "shapes.txt", "workload.py", *end.split()]
    done = run_nkblas(*arguments, cwd=tmp_path)
    assert done.returncode == status, done.stderr
    recorded = (tmp_path / "shapes.txt").read_text()
    assert recorded == "9x9x9:f64 1\n5x6x7:f32 3\n8x8x8:f32 1\n3x4x5:f32 2\n2x3x4:f32 1\n"
    assert "5 problems, 8 products" in done.stderr
    assert ("Traceback" in done.stderr) == (end == "raise")


def test_run_record_module(tmp_path: Path) -> None:
    (tmp_path / "workload.py").write_text(WORKLOAD)
    done = run_nkblas("run", "--record=x", "-m", "workload", "7", cwd=tmp_path)
    assert done.returncode == 7
    assert len((tmp_path / "x").read_text().splitlines()) == 5


@pytest.mark.parametrize(("end", "status"), [("", 0), ("raise", 1), ("7", 7)])
def test_run_report(end: str, status: int, tmp_path: Path) -> None:
    """Each problem with its count and its times, in descending order of time."""
    (tmp_path / "workload.py").write_text(WORKLOAD)
    done = run_nkblas("run", "--report", "workload.py", *end.split(), cwd=tmp_path)
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    if end == "raise":
        assert "RuntimeError\nnkblas: " in done.stderr
    _, _, report = done.stderr.rpartition("nkblas: ")
    summary, header, *rows = report.splitlines()
    assert re.match(r"8 products on generated kernels in \S+ \ws, 0 by NumPy", summary)
    assert header.split()[:2] == ["problem", "products"]
    duration = r" +([\d.e+]+) (ns|us|ms)"
    found = [re.fullmatch(r"(\S+) +(\d+)" + 4 * duration + r" +[\d.]+", row) for row in rows]
    assert {row[1]: int(row[2]) for row in found if row} == {
        "9x9x9:f64": 1, "5x6x7:f32": 3, "8x8x8:f32": 1, "3x4x5:f32": 2, "2x3x4:f32": 1
    }  # fmt: skip
    unit = {"ns": 1, "us": 1e3, "ms": 1e6}
    times = [float(row[3]) * unit[row[4]] for row in found if row]
    assert times == sorted(times, reverse=True)
    assert len(times) == 5


def test_run_report_without_products(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("print('done')\n")
    done = run_nkblas("run", "--report", "script.py", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert "0 products on generated kernels" in done.stderr


def test_run_is_patched(tmp_path: Path) -> None:
    """A program that does not import nkblas has its NumPy products done by it."""
    (tmp_path / "script.py").write_text(
        "from numpy import dot, einsum\n"
        "import numpy as np, sys\n"
        "a = np.ones((5, 5))\n"
        "a @ a; dot(a, a); einsum('ij,jk', a, a); np.tensordot(a, a)\n"
        "print(sys.modules['nkblas'].stats()['calls'])\n"
    )
    assert run_nkblas("run", "script.py", cwd=tmp_path).stdout == "4\n"


def test_run_starts_without_the_planner(tmp_path: Path) -> None:
    """The first product imports it."""
    (tmp_path / "script.py").write_text(
        "import sys\nprint([name for name in sys.modules if 'nkblas.planning' in name])\n"
    )
    assert run_nkblas("run", "script.py", cwd=tmp_path).stdout == "[]\n"


def test_run_record_to_unwritable_file(tmp_path: Path) -> None:
    """The command is refused before the script starts."""
    (tmp_path / "script.py").write_text("print('started')\n")
    done = run_nkblas("run", "--record", "no/where", "script.py", cwd=tmp_path)
    assert_refused(done, 1, "no/where")


def test_run_compiles_with_nkblas_from_the_working_directory(tmp_path: Path) -> None:
    """The working directory, where `python -m` found nkblas, is no longer on the path then."""
    (tmp_path / "workload.py").write_text("import nkblas\nnkblas.matmul([[1.0]], [[2.0]])\n")
    (tmp_path / "workload.py").open("a").write("print(nkblas.stats()['kernels_compiled'])\n")
    package = Path(nkblas.__file__).parents[1]
    done = run_command(
        *[*NKBLAS, "run", tmp_path / "workload.py"],
        cwd=package,
        PYTHONPATH="",
        NKBLAS_CACHE_DIR=tmp_path,
    )
    assert int(done.stdout) > 0, done.stderr
    assert done.stderr == ""


# warmup, tune -------------------------------------------------------------------------------------


@pytest.fixture
def warmups(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Arguments of each call of the tuner, which does nothing; ``--seconds 13`` interrupts it."""
    calls: list[Any] = []

    def warmup(problems: list[str], **keywords: Any) -> None:
        calls.append((list(problems), keywords))
        if keywords.get("seconds") == 13:
            raise KeyboardInterrupt

    monkeypatch.setattr(tuner, "warmup", warmup)
    return calls


@pytest.mark.parametrize(
    ("arguments", "problems", "keywords"),
    [
        ("warmup 5x6x7:f32", ["5x6x7:f32"], {"tune": True, "progress": True}),
        ("warmup --no-tune 5x6x7:f32", ["5x6x7:f32"], {"tune": False, "progress": True}),
        ("warmup --quiet 5x6x7:float64:crr", ["5x6x7:f64:crr"], {"tune": True, "progress": False}),
        ("warmup A", ["4x4x4:f32", "3x3x3:f64"], {"tune": True, "progress": True}),
        (
            "warmup 3x3x3:f64 A 2x2x2:f32 B 2x2x2:f32",
            ["3x3x3:f64", "4x4x4:f32", "2x2x2:f32", "1x1x1:f32"],
            {"tune": True, "progress": True},
        ),
        ("tune 5x6x7:f32", ["5x6x7:f32"], {"force": False, "progress": True}),
        ("tune --force --quiet A", ["4x4x4:f32", "3x3x3:f64"], {"force": True, "progress": False}),
        (
            "tune --seconds 2.5 5x6x7:f32",
            ["5x6x7:f32"],
            {"force": False, "progress": True, "seconds": 2.5},
        ),
    ],
)
def test_warmup(
    arguments: str,
    problems: list[str],
    keywords: dict[str, Any],
    warmups: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "A").write_text("3x3x3:f64 1\n4x4x4:f32 9\n")
    (tmp_path / "B").write_text("1x1x1:f32 1\n")
    assert command_line.main(arguments.split()) == 0
    assert warmups == [(problems, keywords)]


@pytest.mark.parametrize("command", ["warmup", "tune"])
def test_warmup_damaged_recording(
    command: str, warmups: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "A").write_text("3x3x3:f64 1\n4x4x4:f32\n")
    assert command_line.main([command, "5x5x5:f32", str(tmp_path / "A")]) == 1
    assert warmups == []
    assert f"{tmp_path}/A, line 2" in capsys.readouterr().err


def test_tune_interrupted(warmups: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["tune", "--seconds", "13", "5x5x5:f32"]) == 130
    assert capsys.readouterr().err == "nkblas: interrupted\n"


def test_warmup_and_tune(tmp_path: Path) -> None:
    """Recorded problems are compiled for the next process; a tuned plan is exported."""
    workload = """
    import nkblas, numpy as np
    for dtype in "fd":
        nkblas.matmul(np.ones((30, 40), dtype), np.ones((40, 50), dtype))
    print(nkblas.stats()["kernels_compiled"], nkblas.stats()["fallbacks"])
    """
    (tmp_path / "workload.py").write_text(textwrap.dedent(workload))
    for first, *more in (
        ["run", "--record", "shapes.txt", "workload.py"],
        ["warmup", "--no-tune", "--quiet", "shapes.txt", "70x70x70:f32"],
    ):
        assert run_nkblas(first, *more, cwd=tmp_path, NKBLAS_CACHE_DIR=tmp_path).returncode == 0
    done = run_command(sys.executable, "workload.py", cwd=tmp_path, NKBLAS_CACHE_DIR=tmp_path)
    assert done.stdout == "0 0\n"
    shown = run_nkblas("inspect", "30x50x40:f32", NKBLAS_CACHE_DIR=tmp_path).stdout
    assert "nowhere" not in shown
    assert "(model)" in shown

    done = run_nkblas("tune", "--seconds", "0.1", "3x3x3:f32", NKBLAS_CACHE_DIR=tmp_path)
    assert done.returncode == 0
    assert "3x3x3:f32" in done.stderr
    exported = run_nkblas("cache", "export", "-", NKBLAS_CACHE_DIR=tmp_path).stdout
    assert re.search(r"^3x3x3:f32 kind=.* ns=\d", exported, re.MULTILINE)
    assert len(exported.splitlines()) == 2


# inspect ------------------------------------------------------------------------------------------

# Text that each form contains, and text that it does not
FORM_TEXTS = {
    "mlir": ("scf.for", "ret void"),
    "lowered": ("llvm.cond_br", "scf.for"),
    "llvm": ("define void @", "llvm.func"),
    "asm": ("\tret", "define"),
}
# A dtype whose products contain an instruction that is specific to the instruction set
INSTRUCTIONS = {
    "sse42": ("f32", r"\bmulps\b"),
    "avx2": ("f32", r"\bvfmadd\w+ps.*\bymm"),
    "avx2_vnni": ("i8", r"\bvpdpbusd\b.*\bymm"),
    "avx_ne_convert": ("bf16", r"\bvbcstnebf162ps\b"),
    "avx512": ("f32", r"\bzmm2\d\b"),
    "avx512_vnni": ("i8_i32", r"\bvpdpbusd\b.*\bzmm"),
    "avx512_bf16": ("bf16", r"\bvdpbf16ps\b"),
    "avx512_fp16": ("f16", r"\bvcvtph2psx\b"),
    "amx": ("u8_i8_i32", r"\btdpbusd\b"),
    "amx_fp16": ("f16_f32", r"\btdpfp16ps\b"),
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("form", FORMS)
def test_emit(
    form: str, isa: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For each instruction set, also if this CPU lacks it.

    The cost model does not select vdpbf16ps on Intel's CPUs, where it is slow: the CPU is AMD's.
    """
    dtype, instruction = INSTRUCTIONS[isa]
    problem = f"130x120x64:{dtype}:ccr"
    cpu = CPU._replace(isa=ISAS[isa], vendor="AuthenticAMD")
    monkeypatch.setattr(inspect_command, "cpu", cpu)
    plan = measured_plans.best_known_plan(parse(problem), cpu)
    assert len(plan.kernels) > 1
    assert command_line.main(["inspect", problem, "--emit", form, "--isa", isa]) == 0
    text = capsys.readouterr().out
    expected, unexpected = FORM_TEXTS[form]
    assert expected in text
    assert unexpected not in text
    for spec in plan.kernels:
        defined = {"llvm": f"@{spec.symbol}(", "asm": f"<{spec.symbol}>:"}
        assert text.count(defined.get(form, f"llvm.func @{spec.symbol}(")) == 1
    if form == "asm":
        assert re.search(instruction, text)
        others = {pattern for _, pattern in INSTRUCTIONS.values()} - {instruction}
        if dtype == "f32":
            assert not any(re.search(pattern, text) for pattern in others)

    last = plan.kernels[-1].symbol
    command = ["inspect", problem, "--emit", form, "--isa", isa, "--kernel", last]
    assert command_line.main(command) == 0
    alone = capsys.readouterr().out
    assert alone in text
    assert [spec.symbol for spec in plan.kernels if spec.symbol in alone] == [last]


def test_emit_in_a_process() -> None:
    done = run_nkblas("inspect", "5x5x5:f64", "--emit", "asm")
    assert done.returncode == 0
    assert done.stdout.startswith(f"<microkernel_{CPU.isa.base.name}_float64_")
    assert done.stderr == ""


def test_emit_without_mlir(tmp_path: Path) -> None:
    (tmp_path / "mlir").mkdir()
    (tmp_path / "mlir" / "__init__.py").write_text("raise ImportError('no such luck')\n")
    path = os.pathsep.join([str(tmp_path), str(Path(nkblas.__file__).parents[1])])
    done = run_nkblas("inspect", "5x5x5:f32", "--emit", "mlir", PYTHONPATH=path)
    assert_refused(done, 1, "MLIR", "no such luck")


@pytest.mark.parametrize("isa", ISAS)
def test_inspect_plan(isa: str, tmp_path: Path) -> None:
    """As `explain` describes it, for any instruction set: the model's plan, or a tuned one."""
    problem = parse("100x90x20:f32")
    cpu = CPU._replace(isa=ISAS[isa])
    plan, *others = cost_model.ranked_plans(problem, cpu, 30)
    command = ["inspect", str(problem), "--isa", isa]
    done = run_nkblas(*command, NKBLAS_CACHE_DIR=tmp_path)
    assert done.returncode == 0
    assert f"{plan} (model)" in done.stdout
    assert all(spec.symbol in done.stdout for spec in plan.kernels)
    assert done.stdout.count("rejected") == 3

    other = next(p for p in others if str(p) != str(plan))._replace(nanoseconds=123456.0)
    write_plans(tmp_path, [other], machine(cpu))
    done = run_nkblas(*command, NKBLAS_CACHE_DIR=tmp_path)
    assert f"123 us  {other} (tuned)" in done.stdout
    assert done.stdout.count("rejected") == 3
    assert f"{plan} (model)" in done.stdout


# cache --------------------------------------------------------------------------------------------


def some_plans(*problems: str, isa: str = CPU.isa.name) -> list[Plan]:
    cpu = CPU._replace(isa=ISAS[isa])
    found = [cost_model.cheapest_plan(parse(problem), cpu) for problem in problems]
    return [p._replace(nanoseconds=1000.0 + i, origin="tuned") for i, p in enumerate(found)]


def write_plans(folder: Path, found: list[Plan], machine: str = MACHINE, more: str = "") -> Path:
    path = folder / "plans" / f"{machine}.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(map(measured_plans.to_line, found)) + more)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "lock"
    }


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the kernels of a few problems, and with plans."""
    folder = tmp_path_factory.mktemp("warm")
    program = """
    import nkblas, numpy as np
    from nkblas.runtime import dispatch
    from nkblas.base.problem import parse
    for problem in ("5x6x7:f32", "100x90x20:f32", "5x6x7:f64"):
        dispatch.tier_up(parse(problem))
    """
    done = run_command(sys.executable, "-c", textwrap.dedent(program), NKBLAS_CACHE_DIR=folder)
    assert done.returncode == 0, done.stderr
    write_plans(folder, some_plans("5x6x7:f32", "9x9x9:f64:crr"))
    return folder


@pytest.fixture
def copied(warm: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(warm, tmp_path / "copied"))


def keys(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("kernels/*.json"))


def symbol(folder: Path, key: str) -> str:
    return str(json.loads((folder / "kernels" / f"{key}.json").read_text())["kernel"])


def make_obsolete(folder: Path) -> str:
    """Give a kernel a key that this version does not derive from its spec; the new key."""
    old, new = keys(folder)[0], 40 * "a"
    (folder / "kernels" / f"{old}.so").rename(folder / "kernels" / f"{new}.so")
    record = json.loads((folder / "kernels" / f"{old}.json").read_text())
    (folder / "kernels" / f"{old}.json").unlink()
    (folder / "kernels" / f"{new}.json").write_text(json.dumps({**record, "key": new}))
    return new


def test_cache_list(copied: Path) -> None:
    done = run_nkblas("cache", "list", NKBLAS_CACHE_DIR=copied)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert f"{len(keys(copied))} kernels" in lines[0]
    for key in keys(copied):
        size = sum(path.stat().st_size for path in copied.glob(f"kernels/{key}.*"))
        words = (symbol(copied, key), f"{size / 1024:.1f} KiB")
        assert any(all(word in line for word in words) for line in lines), words
    assert "another version" not in done.stdout
    assert "2 tuned plans" in done.stdout
    for plan in some_plans("5x6x7:f32", "9x9x9:f64:crr"):
        words = (str(plan.problem), str(plan))
        assert any(all(word in line for word in words) for line in lines), words

    new = make_obsolete(copied)
    age = time.time() - 3 * 86400
    os.utime(copied / "kernels" / f"{new}.json", (age, age))
    os.utime(copied / "kernels" / f"{new}.so", (age, age))
    lines = run_nkblas("cache", "list", NKBLAS_CACHE_DIR=copied).stdout.splitlines()
    (line,) = (line for line in lines if "of another version" in line)
    assert symbol(copied, new) in line
    assert "3 days" in line


@pytest.mark.parametrize("action", ["list", "verify", "prune", "clear"])
def test_cache_without_files(action: str, tmp_path: Path) -> None:
    done = run_nkblas("cache", action, NKBLAS_CACHE_DIR=tmp_path / "none")
    assert done.returncode == 0
    assert done.stdout != ""
    assert done.stderr == ""
    assert not (tmp_path / "none").exists()


def replace_by_link(path: Path) -> None:
    """Move a file, and put a symbolic link to it in its place."""
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


def replace_by_pipe(path: Path) -> None:
    """Put a pipe without a writer in a file's place: a process that reads it waits forever."""
    path.unlink()
    os.mkfifo(path)


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


# Damage to the folder of kernels and one of its keys; words in the line that reports it; and the
# effect of the repair on the kernel's files and on the file of plans
DAMAGES: dict[str, tuple[Callable[[Path, str], object], list[str], str]] = {
    "library": (
        lambda folder, key: (folder / f"{key}.so").write_bytes(b"damaged"),
        ["{key}.so", "digest", "removed"],
        "kernel gone",
    ),
    "record": (
        lambda folder, key: (folder / f"{key}.json").write_text("{"),
        ["{key}.json", "removed"],
        "kernel gone",
    ),
    "record without end": (
        lambda folder, key: (folder / f"{key}.json").write_text("[" * 100_000),
        ["{key}.json", "nested"],
        "kernel gone",
    ),
    "record of another": (
        lambda folder, key: shutil.copy(
            folder / f"{keys(folder.parent)[0]}.json", folder / f"{key}.json"
        ),
        ["{key}.json", "not this kernel's"],
        "kernel gone",
    ),
    "no library": (
        lambda folder, key: (folder / f"{key}.so").unlink(),
        ["{key}.json", "no library"],
        "kernel gone",
    ),
    "no record": (
        lambda folder, key: (folder / f"{key}.json").unlink(),
        ["{key}.so", "no record"],
        "kernel gone",
    ),
    "link to a library": (
        lambda folder, key: replace_by_link(folder / f"{key}.so"),
        ["{key}.so", "symbolic link"],
        "kernel gone",
    ),
    "pipe for a library": (
        lambda folder, key: replace_by_pipe(folder / f"{key}.so"),
        ["{key}.so", "not a file"],
        "kernel gone",
    ),
    "pipe for a record": (
        lambda folder, key: replace_by_pipe(folder / f"{key}.json"),
        ["{key}.json", "not a file"],
        "kernel gone",
    ),
    "folder for a library": (
        lambda folder, key: replace_by_folder(folder / f"{key}.so"),
        ["{key}.so", "not a file"],
        "kernel gone",
    ),
    "endless library": (
        lambda folder, key: os.truncate(folder / f"{key}.so", 1 << 30),
        ["{key}.so", "not a file"],
        "kernel gone",
    ),
    "library that others can write": (
        lambda folder, key: (folder / f"{key}.so").chmod(0o666),
        ["{key}.so", "others can write", "0666"],
        "kernel gone",
    ),
    "record that others can write": (
        lambda folder, key: (folder / f"{key}.json").chmod(0o620),
        ["{key}.json", "others can write", "0620"],
        "kernel gone",
    ),
    "folder that others can write": (
        lambda folder, key: folder.chmod(0o1777),
        ["kernels: ", "others can write", "1777", "denied others access", "removed"],
        "kernels gone",
    ),
    "cache that others can write": (
        lambda folder, key: folder.parent.chmod(0o775),
        [".: ", "others can write", "0775", "denied others access"],
        "nothing",
    ),
    "link to the kernels": (
        lambda folder, key: replace_by_link(folder),
        ["kernels: ", "symbolic link", "removed"],
        "kernels gone",
    ),
    "temporary library": (
        lambda folder, key: (folder / f".{key}.so.a1b2_3c4").write_text("half"),
        [".{key}.so.a1b2_3c4", "temporary", "removed"],
        "nothing",
    ),
    "temporary plans": (
        lambda folder, key: (folder.parent / f"plans/.{MACHINE}.txt.a1b2_3c4").write_text("half"),
        [f".{MACHINE}.txt.a1b2_3c4", "temporary", "removed"],
        "nothing",
    ),
    "incomplete plan": (
        lambda folder, key: write_plans(folder.parent, [], more="5x6x7:f32 kind=ti"),
        [f"plans/{MACHINE}.txt", "line 1", "removed"],
        "plans empty",
    ),
    "impossible plan": (
        lambda folder, key: write_plans(
            folder.parent,
            some_plans("5x6x7:f32"),
            more=measured_plans.to_line(some_plans("5x6x7:f32")[0]).replace(" mr=", " mr=50"),
        ),
        [f"plans/{MACHINE}.txt", "line 2", "50", "registers", "removed"],
        "plans of line 1",
    ),
    "pipe for plans": (
        lambda folder, key: replace_by_pipe(folder.parent / "plans" / f"{MACHINE}.txt"),
        [f"plans/{MACHINE}.txt", "not a file", "removed"],
        "plans gone",
    ),
    "plans that others can write": (
        lambda folder, key: (folder.parent / "plans" / f"{MACHINE}.txt").chmod(0o602),
        [f"plans/{MACHINE}.txt", "others can write", "removed"],
        "plans gone",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_cache_verify(
    damage: str, copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It finds and repairs the damage, and changes no other file."""
    monkeypatch.setenv("NKBLAS_CACHE_DIR", str(copied))
    assert command_line.main(["cache", "verify"]) == 0
    assert f"{len(keys(copied))} kernels and 2 tuned plans" in capsys.readouterr().out
    before = contents(copied)

    key = keys(copied)[-1]
    make, words, outcome = DAMAGES[damage]
    make(copied / "kernels", key)
    assert command_line.main(["cache", "verify"]) == 1
    output = capsys.readouterr()
    assert output.err == ""
    line, summary = output.out.splitlines()
    assert all(word.format(key=key) in line for word in words), line
    assert "1 fault" in summary

    expected, plan_file = dict(before), f"plans/{MACHINE}.txt"
    if outcome.startswith("kernel"):
        which = "kernels/" if outcome == "kernels gone" else f"kernels/{key}."
        expected = {name: text for name, text in before.items() if not name.startswith(which)}
    elif outcome == "plans gone":
        del expected[plan_file]
    elif outcome == "plans empty":
        expected[plan_file] = b""
    elif outcome == "plans of line 1":
        expected[plan_file] = measured_plans.to_line(*some_plans("5x6x7:f32")).encode()
    found = {name: text for name, text in contents(copied).items() if ".moved" not in name}
    assert found == expected
    assert command_line.main(["cache", "verify"]) == 0


def test_cache_of_another_user(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its files are not read, written, repaired or removed; the output says why."""
    monkeypatch.setenv("NKBLAS_CACHE_DIR", str(copied))
    before = contents(copied)
    if os.geteuid() == 0:
        os.chown(copied, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    for _ in range(2):
        assert command_line.main(["cache", "verify"]) == 1
        output = capsys.readouterr().out
        assert all(word in output for word in ("12345", "NKBLAS_CACHE_DIR")), output
    for action in ("list", "prune", "clear"):
        assert command_line.main(["cache", action]) == 1
        assert "12345" in capsys.readouterr().err
    key = keys(copied)[0]
    stored = Store(copied)
    assert stored.get(key) is None
    stored.put(key, b"library", some_plans("5x6x7:f32")[0].kernels[0])
    with stored.lock(key):
        assert not stored.is_locked(key)
    assert measured_plans.Plans().find(parse("5x6x7:f32"), CPU) is None
    assert contents(copied) == before


def test_cache_of_working_processes(copied: Path) -> None:
    """The files of a kernel that another process is making are neither faults nor removed."""
    key, other = keys(copied)[:2]
    (copied / "kernels" / f"{key}.json").unlink()  # as between the writes of the two files
    (copied / "kernels" / f".{other}.so.a1b2c3d4").write_text("half")
    store = Store(copied)
    with store.lock(key), store.lock(other):
        before = contents(copied)
        for action in ("verify", "prune"):
            done = run_nkblas("cache", action, NKBLAS_CACHE_DIR=copied)
            assert done.returncode == 0, done.stdout
        assert contents(copied) == before
    done = run_nkblas("cache", "verify", NKBLAS_CACHE_DIR=copied)
    assert "2 faults" in done.stdout


def test_modes(tmp_path: Path) -> None:
    """Folders are 0700 and files 0600, whatever the umask."""
    before = os.umask(0)
    try:
        store = Store(tmp_path / "a" / "cache")
        (plan,) = some_plans("5x6x7:f32")
        with store.lock(store.key(plan.kernels[0])):
            store.put(store.key(plan.kernels[0]), b"library", plan.kernels[0])
        measured_plans.append(
            str(tmp_path / "a" / "cache" / "plans" / "x.txt"), [measured_plans.to_line(plan)]
        )
    finally:
        os.umask(before)
    paths = [tmp_path / "a" / "cache", *(tmp_path / "a" / "cache").rglob("*")]
    assert sorted(path.name for path in paths if not path.is_dir())[-2:] == ["lock", "x.txt"]
    assert len(paths) == 8
    for path in paths:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_cache_prune(copied: Path) -> None:
    new = make_obsolete(copied)
    path = write_plans(copied, some_plans("2x2x2:f32", "3x3x3:f32", "2x2x2:f32"))
    before = contents(copied)
    done = run_nkblas("cache", "prune", NKBLAS_CACHE_DIR=copied)
    assert done.returncode == 0
    assert symbol(copied, keys(copied)[0]) != ""
    assert all(word in done.stdout for word in (new, "another version", "1 of its lines"))
    after = contents(copied)
    assert set(before) - set(after) == {f"kernels/{new}.so", f"kernels/{new}.json"}
    a, b, c = some_plans("2x2x2:f32", "3x3x3:f32", "2x2x2:f32")
    assert path.read_text() == measured_plans.to_line(c) + measured_plans.to_line(b)
    assert a.nanoseconds != c.nanoseconds

    again = run_nkblas("cache", "prune", NKBLAS_CACHE_DIR=copied)
    assert "nothing" in again.stdout
    assert contents(copied) == after


def test_pruned_store_still_serves(copied: Path) -> None:
    assert run_nkblas("cache", "prune", NKBLAS_CACHE_DIR=copied).returncode == 0
    program = """
    import nkblas, numpy as np
    nkblas.matmul(np.ones((5, 7), "f"), np.ones((7, 6), "f"))
    print(nkblas.stats()["kernels_compiled"])
    """
    done = run_command(sys.executable, "-c", textwrap.dedent(program), NKBLAS_CACHE_DIR=copied)
    assert done.stdout == "0\n"


def test_cache_clear(copied: Path) -> None:
    """Only files that nkblas wrote are removed."""
    for name in ("mine.txt", "kernels/notes.json", "kernels/abc.so", "plans/notes.txt"):
        (copied / name).write_text("mine")
    (copied / "kernels" / f".{40 * 'b'}.so.abcdefgh").write_text("half")
    assert (copied / "kernels" / "lock").exists()
    done = run_nkblas("cache", "clear", NKBLAS_CACHE_DIR=copied)
    assert done.returncode == 0
    assert contents(copied).keys() == {
        "mine.txt",
        "kernels/notes.json",
        "kernels/abc.so",
        "plans/notes.txt",
    }
    for name in contents(copied):
        (copied / name).unlink()
    run_nkblas("cache", "clear", NKBLAS_CACHE_DIR=copied)
    assert list(copied.iterdir()) == []


def test_read_only_cache(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", str(copied))

    monkeypatch.setenv("NKBLAS_CACHE_DIR", str(copied))
    monkeypatch.setattr(os, "unlink", refuse)
    assert command_line.main(["cache", "clear"]) == 1


def test_plan_after_incomplete_comment(tmp_path: Path) -> None:
    """`compact` moves comments to the top, so that an incomplete one hides no plan."""
    good = list(map(measured_plans.to_line, some_plans("5x6x7:f32", "9x9x9:f64")))
    path = tmp_path / f"{MACHINE}.txt"
    path.write_text("# complete\n" + "".join(good) + "# incomplete")
    assert measured_plans.compact(str(path), CPU) == 1
    assert path.read_text() == "# complete\n" + "".join(good)


def test_lines_appended_during_compact(tmp_path: Path) -> None:
    """No line is lost."""
    (plan,) = some_plans("2x2x2:f32")
    path = write_plans(tmp_path, [plan])
    running = True

    def compact() -> None:
        while running:
            measured_plans.compact(str(path), CPU)

    thread = threading.Thread(target=compact)
    thread.start()
    try:
        for m in range(3, 203):
            (plan,) = some_plans(f"{m}x2x2:f32")
            measured_plans.append(str(path), [measured_plans.to_line(plan)])
    finally:
        running = False
        thread.join()
    assert len(measured_plans.read(str(path))) == 201


@pytest.mark.parametrize("nanoseconds", [0.3, 17.25, 1234.4, 7.3e8])
def test_time_in_a_line(nanoseconds: float) -> None:
    """It is never rounded to 0, which is refused."""
    (plan,) = some_plans("2x2x2:f32")
    line = measured_plans.to_line(plan._replace(nanoseconds=nanoseconds))
    read = measured_plans.from_text(plan.problem, line.partition(" ")[2], CPU)
    assert read.nanoseconds == pytest.approx(nanoseconds, rel=0.01)


def test_append_after_incomplete_line(tmp_path: Path) -> None:
    path = write_plans(tmp_path, some_plans("2x2x2:f32"), more="3x3x3:f32 kind=til")
    measured_plans.append(str(path), map(measured_plans.to_line, some_plans("4x4x4:f32")))
    with open(path) as file:
        good, faults = measured_plans.check(file, CPU)
    assert list(map(str, good)) == ["2x2x2:f32", "4x4x4:f32"]
    assert len(faults) == 1


def test_export_and_import(tmp_path: Path) -> None:
    """Plans that are exported and imported into another folder are the same."""
    here, there, file = tmp_path / "here", tmp_path / "there", tmp_path / "plans.txt"
    here.mkdir()
    tuned = some_plans("9x9x9:f64", "128x768x30:f32", "5x6x7:f32:crs", "9x9x9:f64")
    write_plans(here, tuned)
    done = run_nkblas("cache", "export", file, NKBLAS_CACHE_DIR=here)
    assert done.returncode == 0
    assert "3 plans" in done.stdout
    header, *lines = file.read_text().splitlines(keepends=True)
    assert header.startswith(f"# nkblas plans for {MACHINE} ({CPU.brand})")
    assert lines == [measured_plans.to_line(tuned[i]) for i in (2, 1, 3)]
    output = run_nkblas("cache", "export", "-", NKBLAS_CACHE_DIR=here).stdout
    assert output == file.read_text()

    done = run_nkblas("cache", "import", file, NKBLAS_CACHE_DIR=there)
    assert done.returncode == 0
    assert "3 plans imported" in done.stdout
    assert done.stderr == ""
    assert (there / "plans" / f"{MACHINE}.txt").read_text() == "".join(lines)
    shown = run_nkblas("inspect", "9x9x9:f64", NKBLAS_CACHE_DIR=there).stdout
    assert f"1 us  {tuned[3]} (tuned)" in shown

    # imported plans replace older ones
    write_plans(there, [p._replace(nanoseconds=5.0) for p in tuned[:1]])
    run_nkblas("cache", "import", file, NKBLAS_CACHE_DIR=there)
    assert measured_plans.read(str(there / "plans" / f"{MACHINE}.txt"))["9x9x9:f64"].endswith(
        "ns=1003\n"
    )


def test_export_of_another_isa(tmp_path: Path) -> None:
    cpu = CPU._replace(isa=ISAS["sse42"])
    write_plans(tmp_path, some_plans("9x9x9:f32", isa="sse42"), machine(cpu))
    done = run_nkblas("cache", "export", "-", NKBLAS_CACHE_DIR=tmp_path, NKBLAS_ISA="sse42")
    assert machine(cpu) in done.stdout


def test_export_without_plans(tmp_path: Path) -> None:
    done = run_nkblas("cache", "export", tmp_path / "x", NKBLAS_CACHE_DIR=tmp_path)
    assert_refused(done, 1, MACHINE)
    assert not (tmp_path / "x").exists()


def test_import_refuses_lines(tmp_path: Path) -> None:
    """Valid lines are imported, and each of the others is reported with the reason."""
    good, other = map(measured_plans.to_line, some_plans("5x6x7:f32", "9x9x9:f64"))
    lines = [
        f"# nkblas plans for {MACHINE} (some CPU): 9\n",
        good,
        "nonsense\n",
        good.replace("5x6x7:f32", "5x6x0:f32"),
        re.sub(r"kind=\w+", "kind=magic", good),
        re.sub(r"mr=\d+", "mr=999", good),
        re.sub(r"kc=\d+", "kc=x", good),
        re.sub(r" nr=\d+", "", good),
        re.sub(r"ns=\d+", "ns=-1", good),
        re.sub(r"ns=\d+", "ns=inf", good),
        good.replace("\n", " more=1\n"),
        other,
        good.strip(),
    ]
    file = tmp_path / "plans.txt"
    file.write_text("".join(lines))
    done = run_nkblas("cache", "import", file, NKBLAS_CACHE_DIR=tmp_path)
    assert done.returncode == 1
    assert "2 plans imported" in done.stdout
    assert "10 refused" in done.stdout
    reported = [f"{file}, line {number}: " in done.stderr for number in range(1, 14)]
    assert reported == [False, False, *9 * [True], False, True]
    assert all(word in done.stderr for word in ("'nonsense", "magic", "999x", "above 0"))
    assert (tmp_path / "plans" / f"{MACHINE}.txt").read_text() == good + other


@pytest.mark.parametrize("header", ["", "# nkblas plans for other-1-2-avx512 (a CPU): 1\n"])
def test_import_from_another_machine(header: str, tmp_path: Path) -> None:
    file = tmp_path / "plans.txt"
    file.write_text(header + measured_plans.to_line(*some_plans("5x6x7:f32")))
    done = run_nkblas("cache", "import", file, NKBLAS_CACHE_DIR=tmp_path)
    assert_refused(done, 1, "plans.txt", MACHINE, "--force")
    assert not (tmp_path / "plans").exists()
    done = run_nkblas("cache", "import", "--force", file, NKBLAS_CACHE_DIR=tmp_path)
    assert done.returncode == 0
    assert len((tmp_path / "plans" / f"{MACHINE}.txt").read_text().splitlines()) == 1


def test_import_of_missing_file(tmp_path: Path) -> None:
    done = run_nkblas("cache", "import", tmp_path / "none", NKBLAS_CACHE_DIR=tmp_path)
    assert_refused(done, 1, f"{tmp_path}/none")


@pytest.mark.parametrize(
    "command",
    ["--help", "info", "cache list", "inspect 5x5x5:f32", "inspect 5x5x5:f32 --emit llvm"],
)
def test_closed_pipe(command: str) -> None:
    """The reader ends first, as in `nkblas ... | head`: no error."""
    process = subprocess.Popen(
        [*NKBLAS, *command.split()],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 0
    process.stderr.close()


def test_names_of_temporary_files(tmp_path: Path) -> None:
    """`maintenance` recognises the files that the store and the plans write."""
    names = []
    replace = os.replace

    def record_replace(source: str, target: str, **folders: int) -> None:
        names.append(source)
        replace(source, target, **folders)

    store = Store(tmp_path)
    spec = some_plans("5x6x7:f32")[0].kernels[0]
    path = write_plans(tmp_path, some_plans("2x2x2:f32", "2x2x2:f32"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", record_replace)
        store.put(store.key(spec), b"library", spec)
        measured_plans.compact(str(path), CPU)
    assert len(names) == 3
    assert all(maintenance.TEMPORARY_FILE.fullmatch(name) for name in names), names
    assert re.fullmatch(KERNEL_FILE, f"{store.key(spec)}.so")
    assert maintenance.PLAN_FILE.fullmatch(f"{MACHINE}.txt")
