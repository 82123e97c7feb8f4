"""The verdict composed of its evidence: repeats, and proposals lost before the cubes were written."""

import numpy as np
import pytest
import torch

from synthgen.contracts import Check, Status
from synthgen.integration.judging.judge import judge_cubes
from synthgen.integration.judging.verdict import Evidence, compose_verdict, repeats_check
from synthgen.quality.gates import load_gates
from synthgen.quality.per_cube.acceptance import COPY


@pytest.fixture(scope="module")
def gates(small_gates):
    return load_gates(small_gates)


@pytest.fixture(scope="module")
def findings(gates, fresh_eyes):
    cubes = torch.from_numpy(fresh_eyes.cubes(range(24)))
    return judge_cubes(gates, [(cubes, torch.arange(24))], np.arange(24))


def test_repeats():
    states = [repeats_check(d, len(d)).status for d in ([], [b"a"], [b"a", b"b"], [b"a", b"a"])]
    assert states == [Status.UNDECIDED, Status.UNDECIDED, Status.PASS, Status.FAIL]
    assert repeats_check([], 5).status == Status.FAIL
    assert repeats_check([bytes([i % 5]) for i in range(60)], 60).status == Status.FAIL


def test_cubes_lost_for_an_unknown_reason_count_as_copies(gates, findings):
    """A generator that needed 300 proposals for 24 good cubes is not a good generator."""
    verdict = compose_verdict(gates, findings, unknown=276, images=False)
    checks = {c.name: c for c in verdict.checks}
    assert verdict.proposed == 300
    assert checks["memorization"].status == Status.FAIL and checks["memorization"].value > 0.9
    assert checks["acceptance"].status == Status.FAIL
    assert "276 for a reason not on record" in checks["acceptance"].reason


def test_cubes_lost_for_a_known_reason_count_as_that(gates, findings):
    verdict = compose_verdict(gates, findings, lost={COPY: 6, "not finite": 30}, images=False)
    checks = {c.name: c for c in verdict.checks}
    assert checks["memorization"].value == pytest.approx((6 + findings.acceptance.copies) / 60)
    assert "30 not finite" in checks["acceptance"].reason


def test_a_check_of_the_generator_joins_the_others_and_repeats_need_the_cubes(gates, findings):
    tilt = Check(name="tilt_retained", status=Status.FAIL)
    verdict = compose_verdict(gates, findings, more=[tilt], images=False)
    assert verdict.checks[-1] == tilt and verdict.status == Status.FAIL
    names = [c.name for c in verdict.checks]
    without = compose_verdict(gates, Evidence(findings.acceptance, findings.rows), images=False)
    assert [c.name for c in without.checks] == [n for n in names if n not in ("repeats", "tilt_retained")]
