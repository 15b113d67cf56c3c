"""Names of the columns of metrics that outcomes have."""

from types import SimpleNamespace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from rmdp_jax.records.lines import LARGEST_OUTCOME, _mean_outcomes


class Speed(NamedTuple):
    speed: object


TWO = np.float32([1.0, 2.0])  # of k = 2 policies


@pytest.mark.parametrize(
    ("outcome", "columns"),
    [
        (TWO, {"mean_outcome": [1.0, 2.0]}),
        (Speed(TWO), {"mean_speed": [1.0, 2.0]}),
        ({"x": TWO, "at": Speed(3 * TWO)}, {"mean_at_speed": [3.0, 6.0], "mean_x": [1.0, 2.0]}),
        ({"pay": np.float32([[1, 2, 3], [4, 5, 6]])}, {"mean_pay_0": [1, 4], "mean_pay_1": [2, 5], "mean_pay_2": [3, 6]}),
        (np.float32([[[1, 2]], [[3, 4]]]), {"mean_outcome_0_0": [1, 3], "mean_outcome_0_1": [2, 4]}),
        ((TWO, [2 * TWO]), {"mean_0": [1.0, 2.0], "mean_1_0": [2.0, 4.0]}),
        ({"a_b": TWO, "a": {"b": 2 * TWO}}, {"mean_a_b": [2.0, 4.0], "mean_a_b_": [1.0, 2.0]}),
        ({"image": np.zeros((2, LARGEST_OUTCOME + 1)), "x": TWO}, {"mean_x": [1.0, 2.0]}),
        ({"x": jnp.array([jnp.nan, 1.0])}, {"mean_x": [None, 1.0]}),
    ],
)
def test_each_number_of_an_outcome_is_a_column_by_its_own_name(outcome, columns):
    assert _mean_outcomes(SimpleNamespace(outcome=outcome)) == columns
