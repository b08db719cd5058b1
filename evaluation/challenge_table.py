"""The table of scores with the weights of the Ultra-low Dose PET Imaging Challenge."""

import math
from collections.abc import Sequence

from evaluation.compared_scans import dose_text
from evaluation.measures.challenge_score import PART_WEIGHTS, challenge_scores
from evaluation.measuring import LOW_DOSE, Row
from evaluation.tables import table_head, table_line


def format_challenge(rows: Sequence[Row]) -> str:
    """Markdown table of every method's score, by part and by dose; "" where no dose of the challenge was measured."""
    scores = challenge_scores(rows, LOW_DOSE)
    if not scores:
        return ""
    doses = list(next(iter(scores.values())).doses)
    head = ["method", "score", *PART_WEIGHTS, *map(dose_text, doses)]
    lines = [
        table_line([method, *map(_cell, (one.total, *one.parts.values(), *one.doses.values()))])
        for method, one in scores.items()
    ]
    return "\n".join(["## Score with the challenge's weights", "", *table_head(head), *lines]) + "\n"


def _cell(score: float) -> str:
    return "–" if math.isnan(score) else f"{score:.1f}"
