"""What both trainings share: the learning rate over the steps."""

from __future__ import annotations

import pytest

from synthgen.generator.training.loop import learning_rate


def test_learning_rate_warms_up_and_falls():
    assert learning_rate(0, 0.0, 1.0, 10) == pytest.approx(0.1)
    assert learning_rate(50, 0.0, 1.0, 10) == 1.0
    assert learning_rate(50, 1.0, 1.0, 10) == pytest.approx(0.02)
