"""``nkblas cache``: list, verify, prune, clear, export and import."""

import argparse

from nkblas.cache import maintenance
from nkblas.cache.store import Store
from nkblas.inspect.explain import format_time
from nkblas.planning import measured_plans
from nkblas.planning.microarchitecture import machine as machine_name
from nkblas.system.config import cache_folder
from nkblas.system.cpu import cpu

from .output import (
    CommandError,
    format_age,
    format_count,
    format_size,
    print_error,
    print_table,
)


def list_cache(options: argparse.Namespace) -> int:
    """List kernels with their sizes and ages, and tuned plans with their times."""
    store = Store(cache_folder())
    kernels = maintenance.kernels(store)
    total = format_size(sum(kernel.size for kernel in kernels))
    print(f"{store.folder.path}: {format_count(len(kernels), 'kernel')}, {total}")
    rows = []
    for kernel in kernels:
        state = kernel.damage or ("" if kernel.is_current else "of another version")
        name, size, age = kernel.symbol or kernel.key, kernel.size, kernel.last_used
        rows.append((name, format_size(size), format_age(age), state))
    print_table(rows)
    for path, isa in maintenance.plan_files().items():
        plans, faults = maintenance.read_plans(path, isa, cpu)
        damaged = f", {format_count(len(faults), 'damaged line')}" if faults else ""
        print(f"{path}: {format_count(len(plans), 'tuned plan')}{damaged}")
        print_table(
            (str(problem), format_time(plan.nanoseconds), "", str(plan))
            for problem, plan in sorted(plans.items())
        )
    return 0


def verify(options: argparse.Namespace) -> int:
    """Repair the cache; the status is 1 if it was damaged."""
    store = Store(cache_folder())
    count = 0
    for fault in maintenance.verify(store, cpu):
        print(fault)
        count += 1
    if count:
        print(f"{format_count(count, 'fault')} in {cache_folder()}")
        return 1
    files = maintenance.plan_files().items()
    plans = sum(len(maintenance.read_plans(path, isa, cpu)[0]) for path, isa in files)
    kernels = len(maintenance.kernels(store))
    counts = f"{format_count(kernels, 'kernel')} and {format_count(plans, 'tuned plan')}"
    print(f"{counts}: nothing is damaged")
    return 0


def prune(options: argparse.Namespace) -> int:
    """Repair the cache, and remove files that are useless or exceed the size limit."""
    count = 0
    for fault in maintenance.prune(Store(cache_folder()), cpu):
        print(fault)
        count += 1
    if not count:
        print(f"nothing to remove in {cache_folder()}")
    return 0


def clear(options: argparse.Namespace) -> int:
    """Remove all files of nkblas."""
    files = maintenance.clear(Store(cache_folder()))
    print(f"removed {format_count(len(files), 'file')} from {cache_folder()}")
    return 0


def export_plans(options: argparse.Namespace) -> int:
    """Write the plans that were tuned for this machine and instruction set."""
    machine = machine_name(cpu)
    path = measured_plans.plan_file(cpu, measured_plans.TUNED)
    try:
        plans, faults = maintenance.read_plans(path, cpu.isa.name, cpu)
    except FileNotFoundError:
        plans, faults = {}, []
    for fault in faults:
        print_error(f"{path}, {fault}")
    if not plans:
        raise CommandError(f"no plans were tuned for {machine}: {path} has none")
    text = maintenance.export_text(plans.values(), cpu)
    if options.file == "-":
        print(text, end="")
        return 0
    with open(options.file, "w", encoding="utf-8") as file:
        file.write(text)
    print(f"{options.file}: {format_count(len(plans), 'plan')} for {machine}")
    return 0


def import_plans(options: argparse.Namespace) -> int:
    """Add the valid plans of a file to those of this machine; the status is 1 if some are not."""
    with open(options.file, encoding="utf-8", errors="replace") as file:
        lines = file.readlines()
    machine, origin = machine_name(cpu), maintenance.exported_machine(lines)
    if origin != machine and not options.force:
        reason = f"its plans are for {origin}" if origin else "it does not name its plans' machine"
        raise CommandError(f"{options.file}: {reason}, and this is {machine} (--force takes them)")
    plans, faults = measured_plans.check(lines, cpu)
    for fault in faults:
        print_error(f"{options.file}, {fault}")
    if plans:
        path = measured_plans.plan_file(cpu, measured_plans.TUNED)
        measured_plans.append(path, map(measured_plans.to_line, plans.values()))
    print(f"{format_count(len(plans), 'plan')} imported for {machine}, {len(faults)} refused")
    return int(bool(faults))
