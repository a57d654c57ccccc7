"""`python -m bench [NAME...]`: Portway beside nginx, HAProxy, Envoy and PgBouncer, one worker each, on loopback.

Runs of the sides take turns, at least three rounds, and medians are compared: single runs on a shared machine differ
by a fifth. Exits 0 when all that was asked for was measured, 1 when a side failed; a goal that is missed is a figure,
not a failure, and a peer that isn't installed is skipped, loudly.
"""

import argparse
import json
import os
import platform
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from bench import http, kernel, l4, memory, quiet, sql, tls
from bench.loads import BadRun
from bench.proxies import FILES, Missing, Proxy
from bench.stage import Stage
from bench.table import Result, as_json, markdown
from bench.workload import Figure, Workload
from supervisor.cli.demo.waiting import Late

GROUPS = (http.WORKLOADS, tls.WORKLOADS, l4.WORKLOADS, kernel.WORKLOADS, sql.WORKLOADS, memory.WORKLOADS)
WORKLOADS: dict[str, Workload] = {workload.name: workload for group in GROUPS for workload in group}


def say(text: str) -> None:
    """Progress goes to stderr; the table alone to stdout."""
    print(text, file=sys.stderr, flush=True)


class Sides:
    """The proxies of one workload: started when first needed, ended with it."""

    def __init__(self, stage: Stage, workload: Workload) -> None:
        self.stage = stage
        self.workload = workload
        self.running: dict[str, Proxy] = {}

    def run(self, side: str, seconds: float) -> Figure:
        """One figure of one side."""
        proxy = self.running.get(side)
        if proxy is None:
            starter = self.workload.sides[side]
            folder = self.stage.room(f"{self.workload.name}-{side}")
            proxy = self.running[side] = starter(self.stage, folder)
            self.workload.check(self.stage, proxy)
            if self.workload.warm_up:
                self.workload.measure(self.stage, proxy, self.workload.warm_up)
        try:
            return self._undisturbed(proxy, seconds)
        finally:
            if self.workload.fresh:
                self.stop(side)

    def _undisturbed(self, proxy: Proxy, seconds: float) -> Figure:
        """The figure of a run beside which nobody else worked; else of the least disturbed of several."""
        if self.workload.whole_machine:
            quiet.wait()
            return self.workload.measure(self.stage, proxy, seconds)
        found: list[tuple[float, Figure]] = []
        for _ in range(1 if self.workload.fresh else quiet.AGAIN):
            quiet.wait()
            watch = quiet.Watch()
            figure = self.workload.measure(self.stage, proxy, seconds)
            found.append((watch.others(), figure))
            if found[-1][0] <= quiet.TOLERATED:
                break
        others, figure = min(found, key=lambda one: one[0])
        if others > quiet.TOLERATED:
            say(f"!!! {self.workload.name}: others used {others:.2f} CPUs meanwhile")
        return figure

    def stop(self, side: str) -> None:
        """End one side."""
        proxy = self.running.pop(side, None)
        if proxy is not None:
            proxy.child.stop(30)

    def close(self) -> None:
        """End them all."""
        for side in list(self.running):
            self.stop(side)


def measure(stage: Stage, workload: Workload, rounds: int, seconds: float, sides: Sequence[str]) -> Result:
    """All rounds of one workload."""
    result = Result(workload, {}, {})
    try:
        workload.prepare(stage)
    except Missing as error:
        result.skipped = dict.fromkeys(sides, str(error))
        return result
    running = Sides(stage, workload)
    try:
        for number in range(rounds):
            for side in sides:
                if side in result.skipped:
                    continue
                try:
                    figure = running.run(side, seconds)
                except (Missing, BadRun, Late, RuntimeError, OSError, TimeoutError) as error:
                    result.skipped[side] = str(error) or type(error).__name__
                    if not isinstance(error, Missing):
                        result.skipped[side] = f"FAILED: {result.skipped[side]}"
                    running.stop(side)
                    say(f"!!! {workload.name}: {side}: {result.skipped[side]}")
                    continue
                result.figures.setdefault(side, []).append(figure)
                turn, rate = f"{number + 1}/{rounds}", f"{figure.rate:,.0f}/s"
                say(f"{workload.name:12} {turn} {side:10} {figure.value:8.1f} {workload.unit:20} {rate:>14}")
    finally:
        running.close()
    return result


def main(argv: list[str]) -> int:
    """Run what is asked for; everything without names."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side, in turns (at least 3 to be believed)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single figure there")
    parser.add_argument("--peers-only", action="store_true", help="leave Portway out: are the peers as they should be?")
    options = parser.parse_args(argv)
    if unknown := [name for name in options.names if name not in WORKLOADS]:
        parser.error(f"no workload named {', '.join(unknown)}; there are {', '.join(WORKLOADS)}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    results = []
    with Stage() as stage:
        for name in options.names or WORKLOADS:
            workload = WORKLOADS[name]
            sides = [side for side in workload.sides if side != "portway" or not options.peers_only]
            results.append(measure(stage, workload, options.rounds, options.seconds, sides))
    machine = f"{os.cpu_count()} CPUs, {platform.system()} {platform.release()}, CPython {platform.python_version()}"
    print(markdown(results))
    print(f"\nMedians of {options.rounds} runs of {options.seconds:g}s in turns, one worker each; {machine}.")
    if options.json is not None:
        run = {"machine": machine, "rounds": options.rounds, "seconds": options.seconds}
        document = {**run, "results": as_json(results)}
        options.json.write_text(json.dumps(document, indent=1))
    return int(any(why.startswith("FAILED") for result in results for why in result.skipped.values()))


def _end(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)  # everything that was started is ended on this way too
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(1)
