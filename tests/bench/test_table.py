"""The table says what was measured, what it means, and what was left out."""

from bench.table import Result, as_json, markdown
from bench.workload import Figure, Workload


def workload(**more: object) -> Workload:
    values = {
        "name": "x",
        "title": "some work",
        "unit": "µs",
        "goals": {"nginx": 1.5},
        "sides": {"nginx": None, "portway": None},
        "measure": None,
    }
    return Workload(**{**values, **more})


def figures(*values: float) -> list[Figure]:
    return [Figure(value, 1000.0) for value in values]


def test_medians_are_compared_with_the_goal() -> None:
    table = markdown([Result(workload(), {"nginx": figures(10, 11, 90), "portway": figures(12, 13, 500)}, {})])
    assert table.splitlines()[2] == "| some work | µs | nginx 11.0 | 13.0 | 1.18 | ≤ 1.50 | yes |"


def test_a_missed_goal_stands_out() -> None:
    assert "**no**" in markdown([Result(workload(), {"nginx": figures(10), "portway": figures(16)}, {})])


def test_a_ceiling_needs_no_peer() -> None:
    made = workload(goals={}, ceiling=16.0)
    assert "| nginx - | 12.0 | - | ≤ 16 KiB | yes |" in markdown([Result(made, {"portway": figures(12)}, {})])
    assert "**no**" in markdown([Result(made, {"portway": figures(17)}, {})])


def test_what_is_skipped_is_told_below() -> None:
    text = markdown([Result(workload(), {"portway": figures(5)}, {"nginx": "not installed"})])
    assert text.endswith("SKIPPED nginx in x: not installed")
    assert "| nginx - | 5.0 | - |" in text


def test_json_has_every_run() -> None:
    document = as_json([Result(workload(), {"nginx": figures(1, 2, 3)}, {})])[0]
    assert document["medians"] == {"nginx": 2, "portway": None}
    assert [run["value"] for run in document["runs"]["nginx"]] == [1, 2, 3]
