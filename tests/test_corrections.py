"""p-values corrected for the number of comparisons."""

from __future__ import annotations

import numpy as np
import pytest

from uwmlib.errors import UwmError
from uwmlib.metrics import CORRECTIONS, adjusted


def rejected_by_steps(p_values, level, correction):
    """The two procedures as their authors state them, without adjusted p-values."""
    order, m = np.argsort(p_values, kind="stable"), len(p_values)
    if correction == "holm":  # step down: stop at the first that is not small enough
        passed = 0
        while passed < m and p_values[order[passed]] <= level / (m - passed):
            passed += 1
    else:  # step up: the largest rank that is small enough, and all below it
        passed = max((i + 1 for i in range(m) if p_values[order[i]] <= level * (i + 1) / m), default=0)
    return {int(i) for i in order[:passed]}


@pytest.mark.parametrize("correction", ["holm", "bh"])
@pytest.mark.parametrize("m", [1, 2, 7, 30])
def test_what_survives_is_what_the_procedure_rejects(correction, m):
    rng = np.random.default_rng(m)
    for _ in range(40):
        p_values = rng.random(m) ** 4
        survivors = {int(i) for i in np.flatnonzero(adjusted(p_values, correction=correction) <= 0.05)}
        assert survivors == rejected_by_steps(p_values, 0.05, correction)


def test_holm_by_hand_in_the_order_that_was_given():
    # 4 * 0.01, then 3 * 0.02, then 2 * 0.03 (no less than the one before), then 1 * 0.9
    assert adjusted([0.9, 0.01, 0.03, 0.02], correction="holm") == pytest.approx([0.9, 0.04, 0.06, 0.06])
    assert adjusted([0.6, 0.7], correction="holm") == pytest.approx([1.0, 1.0])


def test_each_keeps_what_it_says_where_nothing_is_there():
    tables = np.random.default_rng(0).random((2000, 12))
    some = {
        name: np.mean([adjusted(p, correction=name).min() <= 0.05 for p in tables]) for name in CORRECTIONS
    }
    assert some["none"] == pytest.approx(1 - 0.95**12, abs=0.04)
    assert some["holm"] == pytest.approx(0.05, abs=0.02)
    assert some["bh"] == pytest.approx(0.05, abs=0.02)


def test_none_corrects_nothing_and_nothing_has_nothing_to_correct():
    assert list(adjusted([0.04, 0.01], correction="none")) == [0.04, 0.01]
    assert all(adjusted([], correction=name).size == 0 for name in CORRECTIONS)


@pytest.mark.parametrize("p_values", [[1.2], [-0.1, 0.5], [float("nan")]])
def test_what_is_no_p_value_is_refused(p_values):
    with pytest.raises(UwmError, match="p-value"):
        adjusted(p_values)


def test_an_unknown_correction_is_answered_with_the_known_ones():
    with pytest.raises(UwmError, match="no correction 'bonferroni'"):
        adjusted([0.5], correction="bonferroni")
