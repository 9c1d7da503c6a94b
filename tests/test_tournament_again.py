"""The second tournament: the plan that was written down beforehand, and what ships of it."""

from __future__ import annotations

import json
import math

import pytest

from uwmlib import studies
from uwmlib.errors import UwmError
from uwmlib.manifests import manifest_path
from uwmlib.studies import plans
from uwmlib.studies.worlds import PLANS


def test_the_plan_that_was_written_down_is_the_one_that_was_run():
    written = json.loads(manifest_path("studies", "tournament_again", "plan.json").read_text())
    assert written == studies.AgainPlan().facts()


def test_no_other_study_has_a_base_of_its_seeds():
    others = {level.base.seed for plan in PLANS.values() for level in plan()}
    assert len(set(studies.AgainPlan().seeds)) == 16 and not others & set(studies.AgainPlan().seeds)


def test_what_ships_has_every_base_and_a_lead_is_the_difference_of_two_gains():
    bases = studies.load_tournament_again()
    plan = studies.AgainPlan()
    assert list(bases) == [f"seed {seed}" for seed in plan.seeds]
    for base in bases.values():
        rows = {(row["method"], row["price"]): row for row in base["rows"]}
        assert len(rows) == len(plan.methods) * 3 and not base["refused"]
        for (_, price), row in rows.items():
            assert (row["strength"] is None) == (row["changes"] == {})
            assert all(math.isfinite(one.lo) and one.lo <= one.hi for one in row["changes"].values())
            if "beyond" in row:
                gains = [each["changes"]["safe_bias"].difference for each in (row, rows["uwm", price])]
                assert row["beyond"].difference == pytest.approx(gains[0] - gains[1], abs=2e-5)
                assert row["beyond"].n == 2000


def test_a_plan_that_was_broken_off_goes_on_and_another_plan_is_not_read(tmp_path):
    made = []

    def job(key):
        made.append(key)
        if made == ["a", "b"]:
            raise KeyboardInterrupt
        return {"key": key}

    path, plan = tmp_path / "new" / "rows.json", {"bases": [{"key": "a"}, {"key": "b"}]}
    jobs = {key: (lambda key=key: job(key)) for key in "ab"}
    with pytest.raises(KeyboardInterrupt):
        plans.make_rows(path, plan, jobs, study="rows", progress=False)
    plans.make_rows(path, plan, jobs, study="rows", progress=False)
    assert made == ["a", "b", "b"]
    assert [row["key"] for row in plans.load_rows(path, plan, "rows")] == ["a", "b"]
    with pytest.raises(UwmError, match="another plan.*uwm study rows"):
        plans.load_rows(path, plan | {"more": 1}, "rows")
    plans.make_rows(path, plan | {"more": 1}, jobs, study="rows", progress=False)
    assert made == ["a", "b", "b", "a", "b"]  # what another plan made is not kept


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"rows": [], "plan": {"bases": 3}}'])
def test_what_is_no_study_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UwmError, match="is no study of a plan"):
        studies.load_tournament_again(tmp_path / "x.json")
