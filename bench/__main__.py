"""`python -m bench [--only GROUP] [--quick]`: measures, prints the table, and rewrites docs/benchmarks.md."""

from __future__ import annotations

import argparse
import sys
import time

from bench import (
    page_speed,
    picture_speed,
    processes,
    real_engine,
    remote_speed,
    report,
    startup,
    transformers_speed,
)

GROUPS = {
    "engine": real_engine.measure,
    "page": page_speed.measure,
    "startup": startup.measure,
    "pictures": picture_speed.measure,
    "transformers": transformers_speed.measure,
    "remote": remote_speed.measure,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", choices=GROUPS, help="measure this group and leave docs/benchmarks.md alone")
    parser.add_argument("--quick", action="store_true", help="few samples, to see that it runs; the same")
    parser.add_argument("--patience", type=float, default=120, help="seconds to wait for the machine to be quiet")
    options = parser.parse_args()

    begun = time.monotonic()
    busiest, figures = 0.0, []
    for name, measure in GROUPS.items():
        if options.only in (None, name):
            busy = processes.quiet(0 if options.quick else options.patience)
            print(f"{name} (the machine is {busy:.0f} % busy with other things)", flush=True)
            with processes.Others() as others:
                for figure in measure(options.quick):
                    figures.append(figure)
                    print("| " + " | ".join(figure.row) + " |", flush=True)
            print(f"{name}: others used {others.percent:.0f} % of the machine meanwhile", flush=True)
            busiest = max(busiest, others.percent)
    print(f"\n{report.table(figures)}")
    if options.only is None and not options.quick:
        preliminary = ""
        if busiest > processes.BUSY_PERCENT:
            preliminary = "the machine was busy with other work; measure again on a quiet one."
        seconds = time.monotonic() - begun
        report.write(report.page(figures, "python -m bench", busiest, seconds, preliminary))
        print(f"\nWritten to {report.FILE}")
    return 1 if any(figure.met is False for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
