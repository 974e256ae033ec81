"""``nkblas info`` and ``nkblas calibrate``."""

import argparse
import contextlib
import importlib

from nkblas.api.patch import patched
from nkblas.inspect import calibrate as calibration
from nkblas.inspect.show_config import show_config
from nkblas.planning import measured_plans
from nkblas.planning.measured_costs import constants_of
from nkblas.planning.microarchitecture import machine
from nkblas.system.cpu import cpu

MODULES_WITH_DOORS = (
    "scipy.linalg",
    "scipy.linalg.cython_blas",
    "scipy.linalg.cython_lapack",
    "scipy.integrate",
    "scipy.odr",
    "scipy.optimize",
    "scipy.sparse.linalg",
)
"""Modules of SciPy which load those that call BLAS."""


def info(options: argparse.Namespace) -> int:
    """Print the configuration, what was measured for this machine, and the CPU's features.

    With ``--doors``, print what `nkblas.patch` reaches in NumPy and SciPy instead.
    """
    if options.doors:
        for name in MODULES_WITH_DOORS:
            with contextlib.suppress(ImportError):  # SciPy, or this version's module
                importlib.import_module(name)
        with patched() as doors:
            print(doors)
        return 0
    show_config()
    tuned, shipped = (
        len(measured_plans.read(measured_plans.plan_file(cpu, layer)))
        for layer in (measured_plans.TUNED, measured_plans.SHIPPED)
    )
    rows = {
        "machine": machine(cpu),
        "plans": f"{tuned} tuned, {shipped} shipped for this machine; a model makes all others",
        "constants": constants_text(),
        "features": " ".join(sorted(cpu.features)),
    }
    print("\n".join(f"{name:9}  {value}" for name, value in rows.items()))
    return 0


def calibrate(options: argparse.Namespace) -> int:
    """Measure the constants of the cost model, and print them."""
    calibration.calibrate()
    print(constants_text())
    return 0


def constants_text() -> str:
    """The constants of the cost model, and where they are from."""
    constants = constants_of(cpu)
    values = (f"{name} {value:.3g}" for name, value in constants.costs._asdict().items())
    return f"{constants}: {', '.join(values)}"
