"""``nkblas inspect``: the plan of a problem, or the code of its kernels."""

import argparse

from nkblas.base.isa import ISAS
from nkblas.base.problem import parse
from nkblas.inspect.explain import describe
from nkblas.planning.measured_plans import best_known_plan
from nkblas.planning.plan import Plan
from nkblas.runtime.abi import canonical
from nkblas.system.cpu import cpu

from .output import CommandError

MLIR_FILE_SEPARATOR = "\n// -----\n"
"""MLIR's own tools split a file there."""


def inspect(options: argparse.Namespace) -> int:
    """Print the best plan known for a problem, or with ``--emit`` the code of its kernels."""
    try:
        problem = canonical(parse(options.problem))
    except ValueError as error:
        raise CommandError(str(error), 2) from None
    target = cpu._replace(isa=ISAS[options.isa]) if options.isa else cpu
    plan = best_known_plan(problem, target)
    if options.emit is not None:
        _print_code(plan, options.emit, options.kernel)
    elif options.kernel is not None:
        raise CommandError("--kernel: expected --emit too", 2)
    else:
        print(describe(plan, target))
    return 0


def _print_code(plan: Plan, form: str, symbol: str | None) -> None:
    """Print the plan's kernels, or the one named `symbol`, in one of `arguments.FORMS`."""
    symbols = [spec.symbol for spec in plan.kernels]
    if symbol not in (None, *symbols):
        message = f"--kernel: got {symbol!r}, expected one of {', '.join(symbols)}"
        raise CommandError(message, 2)
    try:
        # imports MLIR, which may be missing
        from nkblas.codegen.lowering import emit
    except ImportError as error:
        raise CommandError(f"without MLIR there is no code to show: {error}") from None
    separator = MLIR_FILE_SEPARATOR if form in ("mlir", "lowered") else ""
    specs = [spec for spec in plan.kernels if symbol in (None, spec.symbol)]
    for index, spec in enumerate(specs):
        if index > 0:
            print(separator)
        print(emit.FORMS[form](spec).strip("\n"))
