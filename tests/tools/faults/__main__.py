"""Injects faults, and prints a table of what came of it."""

import argparse
import sys
import time

from . import FAULTS, inject


def main() -> int:
    parser = argparse.ArgumentParser("faults", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(FAULTS))
    parser.add_argument("--times", type=int, help="inject each so often")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    unknown = set(options.names) - set(FAULTS)
    if unknown:
        parser.error(f"got {', '.join(sorted(unknown))}, expected some of {', '.join(FAULTS)}")
    print("| fault | times | seed | lost | cost | target |\n|---|---|---|---|---|---|", flush=True)
    failed = False
    for name in options.names or FAULTS:
        times = options.times or FAULTS[name].times
        start = time.monotonic()
        lost, notes = inject(name, times, options.seed)
        cost = ", ".join(f"{what}: {count}" for what, count in sorted(notes.items()) if count)
        what = f"**{len(lost)} times**" if lost else "nothing"
        row = [FAULTS[name].what, times, options.seed, what, cost, f"`make fault-{name}`"]
        print(f"| {' | '.join(map(str, row))} |", flush=True)
        print(f"{name}: {time.monotonic() - start:.0f} s", *lost, sep="\n  ", file=sys.stderr)
        failed |= bool(lost)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
