"""A backbone for other programs: weights that timm loads, or an ONNX graph; the standardisation travels with both.

Both formats carry two strings of JSON: `backbone`, the description that this project keeps (provenance included, so a
leak of patients can still be named), and `standardisation`, all that another program needs to know.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from synthgen.cubes.reflectance import LOG_FLOOR
from synthgen.errors import ConfigError
from synthgen.runs.files import atomic, json_text
from synthgen.runs.state import write_tensors
from synthgen.science.backbone_file import weights_file
from synthgen.science.weight_folders import read_tensors
from synthgen.ssl.backbone import Backbone, load_backbone, place_of

OPSET = 18  # onnxruntime has known it since 2023


class Standardised(nn.Module):
    """Reflectance [B, C, H, W] -> features [B, D]: standardisation and network in one graph."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.model = backbone.model
        self.register_buffer("mean", torch.tensor(backbone.statistics.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(backbone.statistics.std).view(-1, 1, 1))

    def forward(self, reflectance: Tensor) -> Tensor:
        logs = torch.log(torch.relu(reflectance) + LOG_FLOOR)
        return self.model((logs - self.mean) / self.std)


class Exported(NamedTuple):
    """What was written, and of which network: its timm name, bands, rows and columns."""

    path: Path
    name: str
    bands: int
    size: int


def export(
    backbone: Annotated[str | os.PathLike, Field(description="backbone.safetensors or the run folder that holds it")],
    to: Annotated[Literal["timm", "onnx"], Field(description="timm: weights; onnx: a graph that takes reflectance")],
    out: Annotated[str | os.PathLike, Field(description="file to write: .safetensors for timm, .onnx for onnx")],
) -> Exported:
    """Write a backbone for other programs; see `export_timm` and `export_onnx`."""
    found = load_backbone(backbone)
    path = (export_timm if to == "timm" else export_onnx)(backbone, out)
    return Exported(path, found.name, found.bands, found.size)


def export_timm(backbone: str | os.PathLike, out: str | os.PathLike) -> Path:
    """Write weights for `timm.create_model(name, in_chans=bands, num_classes=0, checkpoint_path=out)`.

    What the network then takes is standardised log-reflectance; the file's metadata state how that is made.

    Raises ConfigError when `out` does not end in .safetensors, by which timm detects the format; InputError when
    `backbone` is not one.
    """
    out = _named(out, ".safetensors", "timm")
    loaded = load_backbone(backbone)
    tensors = {key: value.contiguous() for key, value in loaded.network.state_dict().items()}
    with atomic(out) as temporary:
        write_tensors(temporary, tensors, {"format": "pt", **_words(backbone, loaded)})
    return out


def export_onnx(backbone: str | os.PathLike, out: str | os.PathLike) -> Path:
    """Write an ONNX graph: `reflectance` float32 [batch, C, H, H] -> `features` [batch, D]; any batch, one size.

    Raises ConfigError when the packages that write it are missing, or `out` does not end in .onnx.
    """
    out = _named(out, ".onnx", "ONNX")
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"ONNX needs {' and '.join(missing)}", remedy="pip install '.[onnx]' in the clone")
    import onnx

    loaded = load_backbone(backbone)
    example = torch.rand(2, loaded.bands, loaded.size, loaded.size)
    program = torch.onnx.export(
        Standardised(loaded).eval(),
        (example,),
        input_names=["reflectance"],
        output_names=["features"],
        dynamic_shapes={"reflectance": {0: "batch"}},
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    graph = program.model_proto
    onnx.helper.set_model_props(graph, _words(backbone, loaded))
    onnx.checker.check_model(graph)
    with atomic(out) as temporary:
        onnx.save(graph, os.fspath(temporary))
    return out


def standardisation(backbone: Backbone) -> dict[str, Any]:
    """What another program must know to feed the network."""
    return {
        "name": backbone.name,
        "input": f"reflectance in 0..1, [batch, {backbone.bands}, {backbone.size}, {backbone.size}]",
        "formula": "(log(max(x, 0) + floor) - mean) / std",
        "floor": LOG_FLOOR,
        "mean": list(backbone.statistics.mean),
        "std": list(backbone.statistics.std),
        "wavelengths_nm": list(backbone.wavelengths),
    }


def _words(path: str | os.PathLike, loaded: Backbone) -> dict[str, str]:
    card = read_tensors(weights_file(place_of(path)))[1]["backbone"]
    return {"backbone": card, "standardisation": json_text(standardisation(loaded))}


def _named(out: str | os.PathLike, suffix: str, program: str) -> Path:
    path = Path(out)
    if path.suffix != suffix:
        raise ConfigError(
            f"{program} detects its files by their ending", path=path, expected=f"a name ending in {suffix}"
        )
    return path
