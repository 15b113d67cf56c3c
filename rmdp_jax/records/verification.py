"""Whether fresh episodes agree with what a run recorded."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from rmdp_jax.evaluation.evaluate import Evaluation

AGREES = 3.0  # standard errors of the difference: two evaluations of the same policies are farther apart once in 370 times
_ROUNDING = 1e-4  # of the recorded figure, which has seven digits and is of float32 sums


class Verified(NamedTuple):
    """The recorded welfare beside that of fresh episodes."""

    recorded: float
    recorded_standard_error: float | None  # None of the most likely actions, of which none is recorded
    difference: float  # fresh - recorded
    standard_errors: float | None  # the difference, in standard errors of it; None where that of the fresh one is not known
    agrees: bool | None  # None: nobody can tell


def verify(
    result: Mapping[str, Any], evaluation: Evaluation, *, deterministic: bool, recorded_by: int = 1, episodes: int = 1
) -> Verified | None:
    """The evaluation against result.json; None where nothing was recorded, or one of the two is not a number.

    The standard error of the difference is the root of the sum of both squares. Where the recorded figure has none, as by the
    most likely actions or by one episode, that of the fresh one is taken, `recorded_by` so many episodes of each policy instead
    of `episodes`. Where that is not known, nobody can tell.
    """
    recorded = result["welfare_deterministic" if deterministic else "welfare"]
    known = None if deterministic else result["welfare_standard_error"]
    welfare, error = float(evaluation.welfare), float(evaluation.standard_error)
    if recorded is None or not math.isfinite(welfare):
        return None
    difference = welfare - recorded
    same = abs(difference) <= _ROUNDING * abs(recorded)
    if not math.isfinite(error):
        return Verified(recorded, known, difference, None, True if same else None)
    of_difference = math.hypot(error, error * math.sqrt(episodes / recorded_by) if known is None else known)
    apart = abs(difference) / of_difference if of_difference else 0.0 if same else math.inf
    return Verified(recorded, known, difference, apart, same or apart <= AGREES)
