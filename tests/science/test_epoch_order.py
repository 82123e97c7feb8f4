"""The order of an epoch: every sample once, another order in the next, any place without the places before it."""

import numpy as np

from synthgen.runs.keys import numpy_stream
from synthgen.science.epoch_order import epoch_order


def test_every_sample_comes_once_an_epoch():
    walk = epoch_order(np.arange(21), 7, "key", 3).reshape(3, 7)
    assert (np.sort(walk, 1) == np.arange(7)).all()
    assert len({tuple(epoch) for epoch in walk.tolist()}) == 3
    assert walk[1].tolist() == numpy_stream("key", 3, 1).permutation(7).tolist()


def test_a_place_does_not_depend_on_the_way_there():
    walk = epoch_order(np.arange(50), 9, 1, "real")
    assert (epoch_order(np.arange(13, 40), 9, 1, "real") == walk[13:40]).all()
    assert (epoch_order(np.array([44, 2, 44]), 9, 1, "real") == walk[[44, 2, 44]]).all()
    assert epoch_order(np.arange(0), 9, 1, "real").shape == (0,)
    assert (epoch_order(np.arange(50), 9, 2, "real") != walk).any()
