"""``nkblas info``."""

import argparse

from nkblas.inspect.show_config import show_config
from nkblas.planning import measured_plans
from nkblas.system.cpu import cpu


def info(options: argparse.Namespace) -> int:
    """Print the configuration, the number of measured plans, and the CPU's features."""
    show_config()
    tuned, shipped = (
        len(measured_plans.read(measured_plans.plan_file(cpu, layer)))
        for layer in (measured_plans.TUNED, measured_plans.SHIPPED)
    )
    rows = {
        "machine": measured_plans.machine(cpu),
        "plans": f"{tuned} tuned, {shipped} shipped for this machine; a model makes all others",
        "features": " ".join(sorted(cpu.features)),
    }
    print("\n".join(f"{name:9}  {value}" for name, value in rows.items()))
    return 0
