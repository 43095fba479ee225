"""`python -m bench [--only GROUP] [--quick]`: measures, and writes each group into docs/benchmarks.md."""

from __future__ import annotations

import argparse
import sys
import time

from bench import (
    full_room,
    page_speed,
    picture_speed,
    processes,
    real_engine,
    remote_speed,
    rendering_speed,
    report,
    startup,
    transformers_speed,
)

GROUPS = {
    "engine": real_engine.measure,
    "page": page_speed.measure,
    "rendering": rendering_speed.measure,
    "startup": startup.measure,
    "pictures": picture_speed.measure,
    "room": full_room.measure,
    "transformers": transformers_speed.measure,
    "remote": remote_speed.measure,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", choices=GROUPS, help="measure this group alone")
    parser.add_argument("--quick", action="store_true", help="few samples, to see that it runs; writes nothing")
    parser.add_argument("--patience", type=float, default=120, help="seconds to wait for the machine to be quiet")
    options = parser.parse_args()

    missed = False
    for name in [options.only] if options.only else GROUPS:
        begun, figures = time.monotonic(), []
        busy = processes.quiet(0 if options.quick else options.patience)
        print(f"{name} (the machine is {busy:.0f} % busy with other things)", flush=True)
        with processes.Others() as others:
            for figure in GROUPS[name](options.quick):
                figures.append(figure)
                print("| " + " | ".join(figure.row) + " |", flush=True)
        print(f"{name}: others used {others.percent:.0f} % of the machine meanwhile", flush=True)
        missed = missed or any(figure.met is False for figure in figures)
        if not options.quick:
            too_busy = others.percent > processes.BUSY_PERCENT
            took = time.monotonic() - begun
            report.write(name, report.section(name, figures, others.percent, took, too_busy))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
