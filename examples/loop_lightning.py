"""Synthetic cubes in Lightning: python examples/loop_lightning.py

The dataset is made in `train_dataloader`: by then the processes know of one another, and each makes cubes of its own.
"""

import pytorch_lightning as lightning
import torch
from torch import nn
from torch.utils.data import DataLoader

from synthgen import SyntheticRetinaDataset


class SpectralCode(lightning.LightningModule):
    """Describes a spectrum by four numbers."""

    def __init__(self, count: int = 256, batch: int = 16):
        super().__init__()
        self.count, self.batch, self.losses = count, batch, []
        self.model = nn.Sequential(nn.Conv2d(16, 32, 1), nn.GELU(), nn.Conv2d(32, 4, 1), nn.Conv2d(4, 16, 1))

    def train_dataloader(self):
        data = SyntheticRetinaDataset("phantom64", count=self.count, sampler="ab2")
        return DataLoader(data, self.batch, num_workers=0)

    def training_step(self, batch, batch_idx):
        spectra = (batch["cube"] + 5e-4).log() + 3
        loss = nn.functional.mse_loss(self.model(spectra), spectra)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-2)


def main(count: int = 256, batch: int = 16, **trainer) -> list[float]:
    """The loss at each step. `trainer`: options of Lightning's Trainer."""
    module = SpectralCode(count, batch)
    lightning.Trainer(max_epochs=1, logger=False, enable_checkpointing=False, **trainer).fit(module)
    return module.losses


if __name__ == "__main__":
    print(main())
