"""From small cases to a large one, exactly: counts that are a linear form of a case's features."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction


def extrapolate(features: Sequence[Sequence[int]], counts: Sequence[int], at: Sequence[int]) -> int:
    """The count of a case with the features `at`, where `counts` are those of cases with `features`.

    Raises ValueError unless there are more cases than features, one linear form goes through all of them without the
    smallest rest, and no other does.
    """
    width = len(at)
    rows = [[*map(Fraction, row), Fraction(count)] for row, count in zip(features, counts, strict=True)]
    if len(rows) <= width:
        raise ValueError(f"{len(rows)} cases cannot prove a form of {width} features: count at least {width + 1}")
    for column in range(width):
        pivot = next((i for i in range(column, len(rows)) if rows[i][column]), None)
        if pivot is None:
            raise ValueError(f"the cases do not tell feature {column} from those before it")
        rows[column], rows[pivot] = rows[pivot], rows[column]
        scale = rows[column][column]
        rows[column] = [x / scale for x in rows[column]]
        for i, row in enumerate(rows):
            if i != column and row[column]:
                rows[i] = [x - row[column] * y for x, y in zip(row, rows[column], strict=True)]
    if any(row[-1] for row in rows[width:]):
        raise ValueError("the counts are no linear form of these features")
    result = sum((row[-1] * x for row, x in zip(rows, at, strict=False)), Fraction(0))
    if result.denominator != 1:
        raise ValueError(f"the form gives {result}, which is no number of bytes or launches")
    return int(result)
