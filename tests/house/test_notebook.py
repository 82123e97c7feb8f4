"""The notebook: clean as it stands in the repository, and it runs to its end, in small."""

import ast
import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "phantom_to_probe.ipynb"

pytestmark = pytest.mark.skipif(not NOTEBOOK.exists(), reason="not a source tree")


def cells():
    return json.loads(NOTEBOOK.read_text())["cells"]


def test_it_is_stored_without_outputs_and_its_names_exist():
    code = [c for c in cells() if c["cell_type"] == "code"]
    assert len(code) >= 6 and all(c["outputs"] == [] and c["execution_count"] is None for c in code)
    imported, defined = set(), set(dir(__builtins__)) | set(__builtins__ if isinstance(__builtins__, dict) else ())
    for cell in code:
        tree = ast.parse("".join(cell["source"]))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                imported |= {a.name for a in node.names}
                assert all(hasattr(module, a.name) for a in node.names), ast.unparse(node)
            if isinstance(node, ast.Import | ast.ImportFrom):
                defined |= {(a.asname or a.name).split(".")[0] for a in node.names}
            elif isinstance(node, ast.FunctionDef | ast.arg):
                defined.add(node.name if isinstance(node, ast.FunctionDef) else node.arg)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                defined.add(node.id)
        used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        assert used <= defined, f"not defined before it is used: {used - defined}"
    assert {"SyntheticRetinaDataset", "pretrain", "probe_backbone"} <= imported


SMALL = {  # what stands in the notebook -> what is run here
    "STEPS, PATIENTS, CUBES = 100, 32, 64": "STEPS, PATIENTS, CUBES = 3, 12, 16",
    "batch_size=32, certify_count=64": "batch_size=4, certify_count=8",
    "probe_backbone(run, labelled.path)": "probe_backbone(run, labelled.path, rgb_steps=2, folds=2, repeats=1)",
}


@pytest.mark.slow
def test_it_runs(tmp_path):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    whole = json.dumps(notebook)
    assert all(text in whole for text in SMALL)
    for cell in notebook.cells:
        for text, small in SMALL.items():
            cell.source = cell.source.replace(text, small)
    client = nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    message = json.dumps(notebook)
    assert "Pretrained minus random" in message and message.count("image/png") >= 4
