"""The arguments of the command line: commands and their options."""

import argparse
from typing import TYPE_CHECKING, NoReturn

from nkblas.base.isa import ISAS
from nkblas.system.version import __version__

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction["Parser"]

FORMS = {
    "mlir": "the code generator's output",
    "lowered": "after nkblas's passes, in the LLVM dialect",
    "llvm": "LLVM IR, the input of LLVM",
    "asm": "machine code, disassembled",
}
"""The forms of a kernel that ``nkblas inspect --emit`` can print."""

PROBLEMS_HELP = "a problem such as 128x768x3072:f32, or a file that run --record wrote"


class Parser(argparse.ArgumentParser):
    """A parser with error messages of one line."""

    def error(self, message: str) -> NoReturn:
        """Print the message without the usage, and exit."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """The parser. Its results have ``command``, the module and the function of the command."""
    top = Parser("nkblas", description="Matrix products on kernels generated for CPU and shape.")
    top.add_argument("--version", action="version", version=f"nkblas {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    text = "show the CPU, the compiler, the cache, and what is missing on this machine"
    add = _add_command(commands, "info", "info:info", text).add_argument
    text = "show where NumPy and SciPy call BLAS, and whether nkblas.patch() reaches it"
    add("--doors", action="store_true", help=text)
    text = "measure the constants of the cost model on this machine, which takes some seconds"
    _add_command(commands, "calibrate", "info:calibrate", text)
    _add_run(commands)
    _add_warmup_and_tune(commands)
    _add_inspect(commands)
    _add_cache(commands)
    return top


def _add_command(
    commands: "Commands", name: str, function: str, text: str, usage: str | None = None
) -> Parser:
    command = commands.add_parser(
        name, help=text, description=text, usage=usage, allow_abbrev=False
    )
    command.set_defaults(command=function)
    return command


def _add_run(commands: "Commands") -> None:
    usage = "nkblas run [-h] [--record FILE] [--report] (SCRIPT | -m MODULE) [ARGS ...]"
    text = "run a script or a module as python does, with nkblas under NumPy, also in its children"
    add = _add_command(commands, "run", "run:run", text, usage).add_argument
    add("--record", metavar="FILE", help="write its problems to a file, for warmup and tune")
    add("--report", action="store_true", help="at the end, list its products beside NumPy's times")
    add("-m", dest="module", nargs=argparse.REMAINDER, help="a module, and its arguments")
    add("script", nargs=argparse.REMAINDER, help="a script, and its arguments")


def _add_warmup_and_tune(commands: "Commands") -> None:
    text = "prepare for problems: measure plans, compile kernels"
    add = _add_command(commands, "warmup", "warmup:warmup", text).add_argument
    add("--no-tune", dest="tune", action="store_false", help="compile without measuring plans")
    add("--quiet", action="store_true", help="show no progress")
    add("problems", nargs="+", metavar="PROBLEM", help=PROBLEMS_HELP)

    text = "measure plans for problems, and store the fastest"
    add = _add_command(commands, "tune", "warmup:tune", text).add_argument
    add("--force", action="store_true", help="measure even if there is a measured plan")
    add("--seconds", type=seconds, metavar="S", help="the most time to spend on each problem")
    add("--quiet", action="store_true", help="show no progress")
    add("problems", nargs="+", metavar="PROBLEM", help=PROBLEMS_HELP)


def _add_inspect(commands: "Commands") -> None:
    text = "show the plan of a problem, or the code that is generated for it"
    add = _add_command(commands, "inspect", "inspect_command:inspect", text).add_argument
    add("problem", metavar="PROBLEM", help="such as 128x768x3072:f32")
    forms = "; ".join(f"{name}: {text}" for name, text in FORMS.items())
    add("--emit", choices=FORMS, help=f"print the code of the plan's kernels ({forms})")
    add("--isa", choices=ISAS, help="for this instruction set, even if the CPU lacks it")
    add("--kernel", metavar="SYMBOL", help="print the code of this kernel only")


def _add_cache(commands: "Commands") -> None:
    text = "manage the files on disk: kernels and tuned plans"
    cache = commands.add_parser("cache", help=text, description=text)
    actions = cache.add_subparsers(metavar="ACTION", required=True, parser_class=Parser)

    def add_action(name: str, function: str, text: str) -> Parser:
        return _add_command(actions, name, f"cache_commands:{function}", text)

    add_action("list", "list_cache", "list kernels and tuned plans")
    add_action("verify", "verify", "find and repair files that are damaged or left over")
    text = "verify, and remove files that this version can't use or that exceed NKBLAS_CACHE_SIZE"
    add_action("prune", "prune", text)
    add_action("clear", "clear", "remove all kernels and tuned plans")
    add = add_action("export", "export_plans", "write this machine's tuned plans").add_argument
    add("file", metavar="FILE", help="- is the standard output")
    add = add_action("import", "import_plans", "add plans from an exported file").add_argument
    add("file", metavar="FILE")
    add("--force", action="store_true", help="even if they were measured on another machine")


def seconds(text: str) -> float:
    """Parse a time limit. The parser's message for a bad one has the name of this function.

    Raises
    ------
    ValueError
        It is not a finite number above 0.
    """
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError(text)
    return number
