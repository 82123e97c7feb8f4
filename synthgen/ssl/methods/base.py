"""The self-supervised methods. They share one face:

crops(augmenter)       the views that the method wants
forward(views)         loss and scalars to log; `per_sample` holds each cube's loss
  = objective(embed(views), *context(views))
                       features [V, B, D] of the network that learns, with gradient; whatever else the loss takes,
                       without; the loss of the whole batch. Apart, so that a batch can be embedded in parts
after_step(step, total), trainable_parameters(), backbone
"""

from __future__ import annotations

from synthgen.ssl.methods.dino import DINO
from synthgen.ssl.methods.simclr import SimCLR
from synthgen.ssl.methods.statistics import Statistics, WithStatistics
from synthgen.ssl.methods.vicreg import VICReg

Method = SimCLR | VICReg | DINO | Statistics | WithStatistics
