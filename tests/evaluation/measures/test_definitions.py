"""What is said of the metrics: in the guide's table as in the code."""

from evaluation.measures import METRICS
from tests.mpi import ROOT


def line_of(name):
    """A metric's line in the table; one for both references."""
    metric = METRICS[name]
    base = name.removesuffix("_normal")
    shown = f"{base}_*" if f"{base}_truth" in METRICS else name
    good = {"target": f"{metric.target:g}", None: "–"}.get(metric.better, metric.better)
    return f"| `{shown}` | {metric.unit or '1'} | {good} | {metric.definition} | {metric.source} |"


def lines():
    return [line_of(name) for name in METRICS if not name.endswith(("_truth", "_low_dose"))]


def test_the_guide_lists_every_metric():
    guide = (ROOT / "evaluation" / "README.md").read_text(encoding="utf-8").splitlines()
    first = guide.index("| metric | unit | good | definition | source |") + 2
    assert guide[first : first + len(lines())] == lines()
    assert not guide[first + len(lines())].startswith("|")


def test_numbers_without_a_good_direction_have_no_target():
    assert all(metric.target == 0 for metric in METRICS.values() if metric.better != "target")
