"""The Slurm script, run with stand-ins for Slurm and for the command: what it would start on each node."""

import os
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "configs" / "pretrain.slurm"
STAND_INS = {
    "scontrol": 'printf "node7\\nnode8\\n"',
    "srun": 'shift; for task in {0..5}; do SLURM_NTASKS=6 SLURM_PROCID=$task SLURM_LOCALID=$((task % 3)) "$@"; done',
    "synthgen": 'echo "$RANK/$WORLD_SIZE $LOCAL_RANK/$LOCAL_WORLD_SIZE $MASTER_ADDR:$MASTER_PORT $@"',
}


def run(folder: Path, *more: str) -> list[str]:
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    for name, text in STAND_INS.items():
        (tools / name).write_text(f"#!/bin/bash\n{text}\n")
        (tools / name).chmod(0o755)
    environment = {
        **os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_NNODES": "2",
        "SLURM_JOB_ID": "20007",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", str(SCRIPT), *more], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_every_task_joins_the_first_node_and_a_second_submission_resumes(tmp_path: Path):
    first = run(tmp_path, "--data", "a cohort.h5")
    places = ["0/6 0/3", "1/6 1/3", "2/6 2/3", "3/6 0/3", "4/6 1/3", "5/6 2/3"]
    assert first == [f"{place} node7:20007 pretrain --out runs/slurm --data a cohort.h5" for place in places]
    (tmp_path / "runs" / "slurm" / "checkpoints" / "step_00000010").mkdir(parents=True)
    assert all("--out runs/slurm --resume --data" in line for line in run(tmp_path, "--data", "c.h5"))
