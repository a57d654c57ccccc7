"""What was measured, as a Markdown table and as JSON: medians, their ratio, the goal, and whether it is met."""

import statistics
from collections.abc import Sequence
from typing import Any

import attrs

from bench.workload import Figure, Workload


@attrs.define(eq=False)
class Result:
    """The figures of one workload, run by run."""

    workload: Workload
    figures: dict[str, list[Figure]]
    skipped: dict[str, str]  # side -> why there are no figures of it

    def median(self, side: str) -> float | None:
        """The median of a side's figures."""
        values = [figure.value for figure in self.figures.get(side, ())]
        return statistics.median(values) if values else None


def shown(value: float | None) -> str:
    """Three digits that mean something."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def verdict(ours: float | None, theirs: float | None, goal: float | None, ceiling: float | None) -> str:
    """The last column."""
    if ours is None:
        return "-"
    met = (ceiling is None or ours <= ceiling) and (goal is None or theirs is None or ours <= goal * theirs)
    known = ceiling is not None or (goal is not None and theirs is not None)
    return ("yes" if met else "**no**") if known else "-"


def rows(result: Result) -> list[list[str]]:
    """One row for each peer."""
    workload = result.workload
    ours = result.median("portway")
    found = []
    for peer in workload.sides:
        if peer == "portway":
            continue
        theirs = result.median(peer)
        ratio = f"{ours / theirs:.2f}" if ours is not None and theirs else "-"
        goal = workload.goals.get(peer)
        aim = f"≤ {goal:.2f}" if goal is not None else f"≤ {workload.ceiling:g} KiB" if workload.ceiling else "-"
        cells = [workload.title, workload.unit, f"{peer} {shown(theirs)}", shown(ours), ratio, aim]
        found.append([*cells, verdict(ours, theirs, goal, workload.ceiling)])
    return found


def markdown(results: Sequence[Result]) -> str:
    """The table, and below it what was skipped."""
    lines = ["| work | unit | peer | Portway | Portway / peer | goal | met |", "|---|---|---|---|---|---|---|"]
    lines += ["| " + " | ".join(row) + " |" for result in results for row in rows(result)]
    for result in results:
        lines += [f"\nSKIPPED {side} in {result.workload.name}: {why}" for side, why in result.skipped.items()]
    return "\n".join(lines)


def as_json(results: Sequence[Result]) -> list[dict[str, Any]]:
    """All figures, run by run."""
    return [
        {
            "name": result.workload.name,
            "title": result.workload.title,
            "unit": result.workload.unit,
            "goals": dict(result.workload.goals),
            "ceiling": result.workload.ceiling,
            "medians": {side: result.median(side) for side in result.workload.sides},
            "runs": {side: [attrs.asdict(figure) for figure in run] for side, run in result.figures.items()},
            "skipped": result.skipped,
        }
        for result in results
    ]
