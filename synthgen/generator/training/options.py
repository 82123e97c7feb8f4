"""The options of a training of the autoencoder."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from synthgen.generator.config import AutoencoderDesign
from synthgen.generator.training.loop import LoopOptions


class AutoencoderTraining(AutoencoderDesign, LoopOptions):
    """A training of the autoencoder. Loss weights of 0 switch a term off; adversarial 0 and matching 0 is a VQ-VAE."""

    command: ClassVar[str] = "train-autoencoder"
    start_from: str = Field(default="", description="autoencoder or generator whose networks the training starts from")
    keep_latents: bool = Field(
        default=False,
        description="leave the encoder as `start_from` has it: flows on its latents stay valid, levels may change",
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="peak learning rate of the autoencoder")
    critic_learning_rate: float = Field(default=2e-4, gt=0, description="peak learning rate of the discriminators")
    crop: int | None = Field(
        default=None, ge=8, description="train on random crops of this side; the model runs at full size"
    )
    quantiser_start: float = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="fraction of training before the codes start: k-means then sees latents with sense",
    )
    kmeans: Literal["epoch", "once", "none"] = Field(
        default="epoch",
        description="k-means at the start and at every epoch; once: at the start; none: codes start at random latents",
    )
    refit_steps: int = Field(default=100, ge=1, description="least steps between k-means refits, else one per epoch")
    refit_until: float = Field(
        default=0.9, ge=0, le=1, description="fraction of training after which codes only follow the EMA"
    )
    pool_batches: int = Field(
        default=4, ge=1, description="batches pooled for k-means (more at the start if codes need them)"
    )
    code_decay: float = Field(
        default=0.95, ge=0, lt=1, description="moving average of the codes; 0.99 lags a moving encoder"
    )
    dead_share: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="codes used less than this fraction of uniform use are put on new vectors",
    )
    detail_weight: float = Field(
        default=0.0, ge=0, description="how much more the L1 counts where something thin stands out of its surroundings"
    )
    coarse_weight: float = Field(
        default=1.0, ge=0, description="weight of the L1 of means over 2x2, 4x4 and 8x8 pixels"
    )
    subtle_weight: float = Field(
        default=0.0, ge=0, description="weight of the squared error along axes of spectra, more where they are rare"
    )
    structure_weight: float = Field(
        default=0.0,
        ge=0,
        description="weight of the squared error of the mean spectra of arteries, veins, disc and background",
    )
    shift_weight: float = Field(
        default=0.0, ge=0, description="weight of the mean of those errors over the last many cubes, taken back"
    )
    validation_cubes: int = Field(
        default=64, ge=1, description="held-out cubes reconstructed at every validation, for its figures and the gates"
    )
    angle_weight: float = Field(
        default=1.0, ge=0, description="weight of the spectral angle (as a chord, about radians)"
    )
    ms_ssim_weight: float = Field(default=0.2, ge=0, description="weight of 1 - MS-SSIM")
    ms_ssim_bands: int = Field(default=4, ge=1, description="bands per step in the MS-SSIM term, another set each step")
    commitment_weight: float = Field(default=0.25, ge=0, description="weight of the commitment loss")
    adversarial_weight: float = Field(default=0.1, ge=0, description="weight of the adversarial term (adaptive on top)")
    matching_weight: float = Field(default=0.5, ge=0, description="weight of the feature matching")
    adversarial_start: float = Field(
        default=0.3, ge=0, le=1, description="fraction of training when the discriminators join the loss"
    )
    adversarial_ramp: float = Field(
        default=0.1, gt=0, le=1, description="fraction of training over which they reach full weight"
    )
