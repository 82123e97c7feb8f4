"""Fine-tune an exported backbone in plain PyTorch: python examples/finetune.py eyes.safetensors eyes.h5"""

import json
import sys

import timm
import torch
from safetensors import safe_open

from synthgen import Cohort
from synthgen.cubes.cohort.splits import load_or_make_split

weights, cohort = sys.argv[1], Cohort.open(sys.argv[2])
index = cohort.index_of(load_or_make_split(cohort).train)

how = json.loads(safe_open(weights, "pt").metadata()["standardisation"])
mean, std = (torch.tensor(how[key]).view(-1, 1, 1) for key in ("mean", "std"))
x = ((torch.from_numpy(cohort.cubes(index)).clamp_min(0) + how["floor"]).log() - mean) / std
y = torch.from_numpy(cohort.label[index]).long()
model = timm.create_model(how["name"], in_chans=x.shape[1], num_classes=0, checkpoint_path=weights)
model.reset_classifier(2)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for rows in (torch.randperm(len(x))[:16] for _ in range(50)):
    loss = torch.nn.functional.cross_entropy(model(x[rows]), y[rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

print(f"loss {loss.item():.3f}")
