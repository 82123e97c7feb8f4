"""Synthetic cubes in a plain PyTorch loop: python examples/loop_pytorch.py

Here a network of 1 x 1 convolutions learns to describe a spectrum by four numbers. `num_workers=0`: the generator
samples in this process, on CUDA where there is some.
"""

import torch
from torch import nn
from torch.utils.data import DataLoader

from synthgen import SyntheticRetinaDataset


def main(count: int = 256, batch: int = 16) -> list[float]:
    """The loss at each step."""
    data = SyntheticRetinaDataset("phantom64", count=count, sampler="ab2")
    loader = DataLoader(data, batch_size=batch, num_workers=0)
    model = nn.Sequential(nn.Conv2d(16, 32, 1), nn.GELU(), nn.Conv2d(32, 4, 1), nn.Conv2d(4, 16, 1)).to(data.device)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for each in loader:
        spectra = (each["cube"] + 5e-4).log() + 3
        loss = nn.functional.mse_loss(model(spectra), spectra)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    print(main())
