"""One of the two processes of `test_ssl_ranks`: its half of the batch, gradients averaged, left in a file."""

import sys

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from synthgen.ssl.methods.grad_cache import average_gradients, in_parts
from tests.ssl.small_methods import METHODS, make


def small(method, gather=True, backbone="test_vit"):
    return make(method, backbone, gather=gather, **({"local_crops": 1} if method == "dino" else {}))


def views(method, mine):
    keyed = torch.Generator().manual_seed(1)
    whole = [torch.randn(6, 4, 32, 32, generator=keyed)[mine] for _ in range(2)]
    return whole + [torch.randn(6, 4, 16, 16, generator=keyed)[mine]] * (method == "dino")


def flat(model):
    return torch.cat([p.grad.reshape(-1) for p in model.trainable_parameters() if p.grad is not None])


# one process of two
rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
mine, found = slice(3 * rank, 3 * rank + 3), {}
for name in METHODS:
    model = small(name)
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    loss, _ = wrapped(views(name, mine))
    loss.backward()
    found |= {f"{name} loss": loss.detach(), f"{name} whole": flat(model), f"{name} per": model.per_sample.clone()}
    model = small(name)
    loss, _, back = in_parts(model, views(name, mine), 2)
    loss.backward()
    back()
    average_gradients(model)
    found[f"{name} parts"] = flat(model)
features = torch.randn(2, 6, 128, generator=torch.Generator().manual_seed(3))
model = small("simclr", backbone="test_resnet")
loss, _ = model.objective(features[:, mine, : model.backbone.num_features])
found["resnet"] = loss.detach()
save_file(found, f"{folder}/rank{rank}.safetensors")
dist.barrier()
dist.destroy_process_group()
