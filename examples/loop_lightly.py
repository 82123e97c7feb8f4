"""lightly's SimCLR example on synthetic cubes: python examples/loop_lightly.py

lightly's own transforms work on RGB pictures; the views here are those of `synthgen.ssl.augment.pipeline`, made on the device
of the cubes, in reflectance, and standardised afterwards. Each cube comes once, so its id is key enough.
"""

import timm
import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from torch import nn
from torch.utils.data import DataLoader

from synthgen import SyntheticRetinaDataset
from synthgen.cubes.reflectance import band_statistics
from synthgen.ssl.augment.pipeline import Augmentation, Augmenter
from synthgen.ssl.backbone import standardise


class SimCLR(nn.Module):
    """As in lightly's examples, with sixteen bands."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.head = SimCLRProjectionHead(backbone.num_features, 128, 64)

    def forward(self, view: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(view))


def main(count: int = 256, batch: int = 16, backbone: str = "resnet18") -> list[float]:
    """The loss at each step."""
    data = SyntheticRetinaDataset("phantom64", count=count, sampler="ab2")
    nm = data.generator.wavelengths
    augmenter, statistics = Augmenter(Augmentation(), nm, 64), None
    model = SimCLR(timm.create_model(backbone, in_chans=len(nm), num_classes=0)).to(data.device)
    criterion, optimizer = NTXentLoss(temperature=0.2), torch.optim.AdamW(model.parameters(), 1e-3)
    losses = []
    for each in DataLoader(data, batch_size=batch, num_workers=0):
        statistics = statistics or band_statistics(each["cube"])
        first, second = (standardise(v, statistics) for v in augmenter.views(each["cube"], 0, 0, each["id"]))
        loss = criterion(model(first), model(second))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    print(main())
