"""The Slurm script, run with stand-ins for Slurm and for the launcher: what it would start on each node."""

import os
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "configs" / "pretrain.slurm"
STAND_INS = {
    "scontrol": 'printf "node7\\nnode8\\n"',
    "srun": 'shift; for node in 0 1; do SLURM_NODEID=$node "$@"; done',
    "accelerate": 'echo "$@"',
}


def run(folder: Path, *more: str) -> list[str]:
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    for name, text in STAND_INS.items():
        (tools / name).write_text(f"#!/bin/bash\n{text}\n")
        (tools / name).chmod(0o755)
    environment = {
        **os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_NNODES": "2",
        "SLURM_GPUS_ON_NODE": "3",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", str(SCRIPT), *more], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_every_node_joins_the_first_and_a_second_submission_resumes(tmp_path: Path):
    first = run(tmp_path, "--data", "a cohort.h5")
    assert [line.split("--machine_rank ")[1][0] for line in first] == ["0", "1"]
    assert all("--num_machines 2" in line and "--num_processes 6" in line for line in first)
    assert all("--main_process_ip node7" in line and "--data a cohort.h5" in line for line in first)
    assert all("-m synthgen.integration.pretrain --out runs/slurm --data" in line for line in first)
    (tmp_path / "runs" / "slurm" / "checkpoints" / "step_00000010").mkdir(parents=True)
    assert all("--out runs/slurm --resume --data" in line for line in run(tmp_path, "--data", "c.h5"))
