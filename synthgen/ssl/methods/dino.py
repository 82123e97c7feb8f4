"""DINO (Caron et al., 'Emerging properties in self-supervised vision transformers', ICCV 2021).

A student network predicts, from any crop, what a slow teacher outputs for the whole views; centring and a sharp
teacher keep both from collapsing. Loss, head, momentum update and schedule are lightly's.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from lightly.loss import DINOLoss
from lightly.models.modules import DINOProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.utils.scheduler import cosine_schedule
from pydantic import Field
from torch import Tensor, nn

from synthgen.config import Config
from synthgen.ssl.augment.pipeline import Augmenter, Crop
from synthgen.ssl.backbone import feature_count
from synthgen.ssl.evaluation.monitors import feature_std
from synthgen.ssl.methods.base import Method


class DINOConfig(Config):
    """Settings of DINO. The output dimension is small (the paper has 65536) because the cohorts are."""

    output_dim: int = Field(default=2048, ge=2, description="number of prototypes")
    hidden_dim: int = Field(default=512, ge=1, description="width of the projection head")
    bottleneck_dim: int = Field(default=128, ge=1, description="width before the prototypes")
    local_crops: int = Field(default=4, ge=0, description="small crops that only the student sees")
    local_scale_min: float = Field(
        default=0.1, gt=0, le=1, description="smallest fraction of the image in a small crop"
    )
    local_scale_max: float = Field(default=0.4, gt=0, le=1, description="largest fraction of the image in a small crop")
    local_size: int | None = Field(
        default=None,
        ge=8,
        description="height and width of a small crop, pixels; 3/7 of the whole view's where not given",
    )
    student_temperature: float = Field(default=0.1, gt=0, description="of the softmax over prototypes")
    teacher_temperature: float = Field(default=0.06, gt=0, description="after warm-up")
    warmup_teacher_temperature: float = Field(default=0.04, gt=0, description="at the start")
    warmup_steps: int = Field(default=300, ge=0, description="steps over which the teacher's temperature rises")
    freeze_steps: int = Field(
        default=100, ge=0, description="first steps in which the prototypes stay (an epoch in the paper)"
    )
    momentum: float = Field(
        default=0.99, ge=0, le=1, description="of the teacher at the start; it rises to 1 along a cosine"
    )
    center_momentum: float = Field(default=0.9, ge=0, lt=1, description="of the mean that the teacher subtracts")

    def local_at(self, size: int) -> int:
        """Height and width of a small crop, in pixels, beside whole views of `size`.

        The paper's 96 beside 224, to a multiple of 16, which the patches of most transformers divide: 32 beside 64. A
        fixed number would at some size be reached by shrinking fourfold, and leave a transformer four tokens.
        """
        return self.local_size or max(16, 16 * round(3 / 7 * size / 16))


def teacher_temperature(done: int, config: DINOConfig) -> float:
    """Linear rise over `warmup_steps`, then constant; `done` is the number of steps already done."""
    part = min(1.0, done / config.warmup_steps) if config.warmup_steps else 1.0
    start = config.warmup_teacher_temperature
    return start + part * (config.teacher_temperature - start)


class DINO(Method):
    """Student and teacher.

    The teacher sees the first two views, the student all of them. `backbone` (what is exported) is the teacher's, which
    the paper finds better than the student's throughout training.

    Args:
        backbone: [B, C, H, W] -> [B, D] with `num_features` = D, at whole and local size; the student's.
        gather: as the other methods take it. DINO has no negatives, its head no batch norm, and lightly's centre
            is averaged over the processes in any case, so two processes give the gradients of one as it is.
    """

    def __init__(self, backbone: nn.Module, config: DINOConfig | None = None, gather: bool = False):
        super().__init__()
        config = config or DINOConfig()
        self.config, self.done = config, 0
        dims = (feature_count(backbone), config.hidden_dim, config.bottleneck_dim, config.output_dim)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # lightly's head uses PyTorch's older weight norm
            heads = [DINOProjectionHead(*dims) for _ in range(2)]
        self.student = nn.ModuleDict({"backbone": backbone, "head": heads[0]})
        self.teacher = nn.ModuleDict({"backbone": copy.deepcopy(backbone), "head": heads[1]})
        self.teacher.load_state_dict(self.student.state_dict())
        deactivate_requires_grad(self.teacher)
        self.criterion = DINOLoss(
            config.output_dim, student_temp=config.student_temperature, center_momentum=config.center_momentum
        )
        for prototypes in self.student["head"].last_layer.parameters():
            if prototypes.requires_grad:
                prototypes.register_hook(self._hold_prototypes)

    @property
    def backbone(self) -> nn.Module:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.teacher["backbone"]

    @property
    def learner(self) -> nn.Module:
        return self.student["backbone"]

    def crops(self, augmenter: Augmenter) -> list[Crop]:
        """The views that `forward` takes: two whole ones, then the local ones."""
        c = self.config
        local = Crop((c.local_scale_min, c.local_scale_max), c.local_at(augmenter.size))
        return [augmenter.whole] * 2 + [local] * c.local_crops

    def context(self, views: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The teacher's features [2, B, D] of the whole views, without gradient."""
        with torch.no_grad():
            return (self.teacher["backbone"](torch.cat(list(views[:2]))).unflatten(0, (2, -1)),)

    def embed(self, views: Sequence[Tensor]) -> Tensor:
        """The student's features [V, B, D]; views of one size go through the network as one batch."""
        batch = len(views[0])
        sizes = [torch.cat(list(views[:2]))] + ([torch.cat(list(views[2:]))] if len(views) > 2 else [])
        return torch.cat([self.student["backbone"](group) for group in sizes]).unflatten(0, (-1, batch))

    def objective(self, features: Tensor, *context: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the student's features [V, B, D] beside the teacher's [2, B, D], and scalars to log."""
        (teacher,), temperature = context, teacher_temperature(self.done, self.config)
        with torch.autocast(features.device.type, enabled=False):
            with torch.no_grad():
                taught = list(self.teacher["head"](teacher.float().flatten(0, 1)).chunk(len(teacher)))
            learned = list(self.student["head"](features.float().flatten(0, 1)).chunk(len(features)))
            self.per_sample = self._per_sample(taught, learned, temperature)
            loss = self.criterion(taught, learned, teacher_temp=temperature)  # updates the centre last
        return loss, {"feature_std": feature_std(teacher.flatten(0, 1))}

    def after_step(self, step: int, total: int) -> None:
        """Let the teacher follow. `step` counts from 0; call after the optimiser's step."""
        momentum = cosine_schedule(step, total, self.config.momentum, 1.0)
        update_momentum(self.student, self.teacher, momentum)
        self.done = step + 1

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        return (p for p in self.student.parameters() if p.requires_grad)

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.done)

    def set_extra_state(self, state: Tensor) -> None:
        self.done = int(state)

    def _hold_prototypes(self, gradient: Tensor) -> Tensor:
        """Cancels the prototypes' gradient at first; zeros and no None, which several processes could not average."""
        return torch.zeros_like(gradient) if self.done < self.config.freeze_steps else gradient

    @torch.no_grad()
    def _per_sample(self, taught: list[Tensor], learned: list[Tensor], temperature: float) -> Tensor:
        """The loss of each cube [B]: the same cross-entropies as the criterion's, not averaged over the batch."""
        target = F.softmax((torch.stack(taught) - self.criterion.center) / temperature, dim=-1)
        guess = F.log_softmax(torch.stack(learned) / self.config.student_temperature, dim=-1)
        pairs = -torch.einsum("tbd,sbd->bts", target, guess)
        own = torch.eye(len(taught), len(learned), dtype=torch.bool, device=pairs.device)
        return pairs.masked_fill(own, 0).sum((1, 2)) / (~own).sum()
