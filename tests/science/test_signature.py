"""The law of the signature: a tilt of 1 % at 450 nm, Rayleigh's power, nothing above the cut-off."""

import numpy as np
import pytest

from synthgen.cubes.phantom.spectra import Signature
from synthgen.science.signature import signature_law

NM = [450.0 + 30 * i for i in range(16)]


def test_one_percent_in_the_blue_and_gone_above_585_nm():
    found = signature_law(NM, 0.01)
    assert found[0] == 0.01 and found[4] == pytest.approx(0.01 * (570 / 450) ** -4) and not found[5:].any()
    assert (signature_law(NM, -0.01) == -found).all() and not signature_law(NM, 0).any()


def test_the_phantom_carries_the_same_law():
    assert (Signature(0.02).law(np.array(NM)) == signature_law(NM, 0.02)).all()
    other = Signature(0.02, exponent=1, cutoff_nm=500).law(np.array(NM))
    assert other[:3] == pytest.approx([0.02, 0.02 * 450 / 480, 0])
