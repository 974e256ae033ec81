"""Kernels and tuned plans from the cache of one machine for that of another with the same CPU."""

from typing import Any, NamedTuple

from nkblas.codegen.spec import from_dict
from nkblas.planning import measured_plans
from nkblas.planning.measured_plans import measured
from nkblas.planning.microarchitecture import machine
from nkblas.system.cpu import CPU

from .maintenance import kernels
from .store import Store

MAX_BUNDLE_BYTES = 64 << 20
"""Size of the kernels in a bundle: those that were used last are taken."""


class Inventory(NamedTuple):
    """What a cache holds for its machine.

    Attributes
    ----------
    machine : str
        The CPU model and instruction set.
    kernels : frozenset of str
        Keys.
    problems : frozenset of str
        Those with tuned plans.
    """

    machine: str
    kernels: frozenset[str]
    problems: frozenset[str]


class Bundle(NamedTuple):
    """What another cache lacks.

    Attributes
    ----------
    kernels : dict of str to (dict, bytes)
        Specification and library by key.
    plans : list of str
        Lines of a plan file.
    """

    kernels: dict[str, tuple[dict[str, Any], bytes]]
    plans: list[str]


def take_inventory(store: Store, cpu: CPU) -> Inventory:
    """What the cache has for this machine, damaged kernels left out.

    Raises
    ------
    OSError
        The folder can't be used.
    """
    keys = frozenset(kernel.key for kernel in kernels(store) if kernel.is_current)
    plans = measured_plans.read(measured_plans.plan_file(cpu, measured_plans.TUNED))
    return Inventory(machine(cpu), keys, frozenset(plans))


def make_bundle(store: Store, cpu: CPU, other: Inventory) -> Bundle:
    """What this cache has and the other one lacks; nothing, if that is of another machine.

    Raises
    ------
    OSError
        The folder can't be used.
    """
    bundle = Bundle({}, [])
    if other.machine != machine(cpu):
        return bundle
    size = 0
    for kernel in sorted(kernels(store), key=lambda kernel: -kernel.last_used):
        if not kernel.is_current or kernel.key in other.kernels:
            continue
        size += kernel.size
        if size > MAX_BUNDLE_BYTES:
            break
        record, library = store.read(kernel.key)
        bundle.kernels[kernel.key] = record["spec"], library
    plans = measured_plans.read(measured_plans.plan_file(cpu, measured_plans.TUNED))
    bundle.plans.extend(
        f"{problem} {rest}" for problem, rest in plans.items() if problem not in other.problems
    )
    return bundle


def add_bundle(store: Store, cpu: CPU, bundle: Bundle) -> tuple[int, int]:
    """Add a bundle to the cache: what this version can use, and what is not there yet.

    Returns
    -------
    kernels, plans : int
        How many were added.
    """
    added = 0
    for key, (record, library) in bundle.kernels.items():
        try:
            spec = from_dict(record)
        except (KeyError, TypeError):
            continue  # of another version
        if store.key(spec) == key and not store.has(spec):
            store.put(key, library, spec)
            added += 1
    plans, _ = measured_plans.check(bundle.plans, cpu)
    new = [plan for problem, plan in plans.items() if not measured.is_tuned(problem, cpu)]
    for plan in new:
        measured.save(plan, cpu)
    return added, len(new)
