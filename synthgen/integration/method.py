"""The method of a pretraining over a new backbone, and what it receives from the real cubes beforehand."""

from __future__ import annotations

import numpy as np
import torch

from synthgen.cubes.reflectance import BandStatistics
from synthgen.integration.monitoring import even_subset
from synthgen.integration.options import MethodOptions
from synthgen.integration.supply.real import RealCubes
from synthgen.ssl.augment.pipeline import Augmenter
from synthgen.ssl.backbone import check_size, make_backbone, standardise
from synthgen.ssl.methods.base import Method
from synthgen.ssl.methods.dino import DINO
from synthgen.ssl.methods.simclr import SimCLR
from synthgen.ssl.methods.statistics import Statistics, WithStatistics, described
from synthgen.ssl.methods.vicreg import VICReg
from synthgen.ssl.spectral_statistics import SpectralStatistics
from synthgen.ssl.spectral_whitening import PixelSpectra, pixel_spectra, whiten_first_layer

METHODS = {"simclr": SimCLR, "vicreg": VICReg, "dino": DINO}  # and `statistics`, which needs targets to be made
SPECTRA_FROM = 1024  # cubes are plenty for the covariance of bands and for the statistics of cubes
AT_ONCE = 32  # cubes described at a time


def describe_spectra(
    config: MethodOptions, seed: int, real: RealCubes, statistics: BandStatistics, augmenter: Augmenter
) -> tuple[PixelSpectra | None, SpectralStatistics | None]:
    """What the real cubes give: pixel spectra, for the first layer, and their statistics, for the task of predicting
    them; None for what is not asked for."""
    predicts = config.method == "statistics" or config.statistics.weight > 0
    if not (predicts or config.whiten):
        return None, None
    few = even_subset(real.index, SPECTRA_FROM)
    spectra = pixel_spectra(real.cohort.each(few), statistics) if config.whiten else None
    if not predicts:
        return spectra, None
    tissue = pixel_spectra(real.cohort.each(few), statistics, tissue=True)
    clean = [described(augmenter)]
    warped = (
        standardise(
            augmenter.views(torch.from_numpy(real.cohort.cubes(part)), seed, 0, part, crops=clean)[0], statistics
        )
        for part in np.array_split(few, max(1, len(few) // AT_ONCE))
    )
    return spectra, SpectralStatistics(tissue, statistics, config.statistics).fit(warped)


def make_method(
    config: MethodOptions,
    bands: int,
    size: int,
    gather: bool = False,
    spectra: PixelSpectra | None = None,
    targets: SpectralStatistics | None = None,
) -> Method:
    """The method over a new backbone for cubes [bands, size, size]; ConfigError where cubes or views do not fit it.

    spectra: of real pixels, which the first layer is to see whitened. targets: statistics that are to be predicted.
    """
    backbone = make_backbone(config.backbone, bands, size, config.reading)
    whole = config.augmentation.size_of_views(size)
    if spectra is not None:
        whiten_first_layer(backbone, spectra.whitening())
    if whole != size:
        check_size(backbone, config.backbone, bands, whole)
    if config.method == "statistics":
        assert targets is not None
        return Statistics(backbone, targets, gather)
    if config.method == "dino" and config.dino.local_crops:
        check_size(backbone, config.backbone, bands, config.dino.local_at(whole))
    method = METHODS[config.method](backbone, getattr(config, config.method), gather)
    return method if targets is None else WithStatistics(method, targets, config.statistics.weight, gather)
