"""The nearest bands, in the order asked; of two as near the longer."""

import pytest

from synthgen.science.bands import nearest_bands

SIXTEEN = [450.0 + 30 * i for i in range(16)]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ((452, 541, 900), [450, 540, 900]),
        ((900, 815, 730, 640, 555, 465), [900, 810, 720, 630, 570, 480]),  # 555 and 465 lie half way
        ((620, 550, 470), [630, 540, 480]),
        ((2000, 0), [900, 450]),
        ((), []),
    ],
)
def test_nearest_of_sixteen_bands(wanted, found):
    assert [SIXTEEN[b] for b in nearest_bands(SIXTEEN, wanted)] == found


def test_a_band_may_come_twice():
    assert nearest_bands([450, 555, 900], (900, 815, 730, 640, 555, 465)) == [2, 2, 2, 1, 1, 0]
    assert nearest_bands([500.0], (400, 600)) == [0, 0]
