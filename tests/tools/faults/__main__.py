"""Inject faults, and print a table of the outcomes."""

import argparse
import sys
import time

from . import FAULTS, inject


def main() -> int:
    parser = argparse.ArgumentParser("faults", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(FAULTS))
    parser.add_argument("--times", type=int, help="number of injections of each fault")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first injection (1)")
    options = parser.parse_args()
    unknown = set(options.names) - set(FAULTS)
    if unknown:
        parser.error(f"got {', '.join(sorted(unknown))}, expected some of {', '.join(FAULTS)}")
    print("| fault | times | seed | lost | cost | target |\n|---|---|---|---|---|---|", flush=True)
    has_failed = False
    for name in options.names or FAULTS:
        times = options.times or FAULTS[name].times
        start = time.monotonic()
        failures, notes = inject(name, times, options.seed)
        cost = ", ".join(f"{what}: {count}" for what, count in sorted(notes.items()) if count)
        lost = f"**{len(failures)} times**" if failures else "nothing"
        row = [FAULTS[name].description, times, options.seed, lost, cost, f"`make fault-{name}`"]
        print(f"| {' | '.join(map(str, row))} |", flush=True)
        print(f"{name}: {time.monotonic() - start:.0f} s", *failures, sep="\n  ", file=sys.stderr)
        has_failed |= bool(failures)
    return int(has_failed)


if __name__ == "__main__":
    sys.exit(main())
