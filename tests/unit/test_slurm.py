"""The Slurm profile, in a shell of its own with Slurm's and Ray's commands played: no Slurm was at hand to run it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

HERE = Path(__file__).resolve().parents[2]
SCRIPT = HERE / "profiles/slurm/run.sbatch"
PLAYED = {
    # A step is the command after its options, with the token and where it was told to run.
    "srun": 'echo "srun $*" >> "$SAID"; echo "token ${#RAY_AUTH_TOKEN} $RAY_AUTH_MODE" >> "$SAID"; exec sleep 60',
    "scontrol": "printf 'a1\\na2\\na3\\n'",
    "ray": 'echo "ray $*" >> "$SAID"',
    "snakemake": 'echo "snakemake $* on $RAY_ADDRESS" >> "$SAID"; trap "echo interrupted >> \\"$SAID\\"; exit 3" INT; '
    'for _ in $(seq "${LONG:-0}"); do sleep 0.05; done',
}
SLURM = {
    "SLURM_JOB_NUM_NODES": "3",
    "SLURM_CPUS_ON_NODE": "16",
    "SLURM_JOB_ID": "70123",
    "SLURM_JOB_NODELIST": "a[1-3]",
}


@pytest.fixture
def submit(tmp_path):
    """Starts the script in a checkout with played commands; gives the process."""
    room = tmp_path / ".venv/bin"
    room.mkdir(parents=True)
    for name, body in PLAYED.items():
        (room / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (room / name).chmod(0o755)
    (room / "python").symlink_to(sys.executable)
    played = {"SLURM_SUBMIT_DIR": str(tmp_path), "SAID": str(tmp_path / "said")}
    started = []

    def start(*words, **environment):
        process = subprocess.Popen(
            ["bash", str(SCRIPT), *words],
            env={**os.environ, **SLURM, **played, **environment},
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def said(tmp_path):
    return (tmp_path / "said").read_text().splitlines() if (tmp_path / "said").exists() else []


def test_every_node_starts_ray_once_and_the_pipeline_finds_the_first(submit, tmp_path):
    process = submit("experiment=paper", SLURM_GPUS_ON_NODE="8", SET="run.dtype=bfloat16")
    assert process.wait(120) == 0, process.stderr.read()
    lines = said(tmp_path)
    steps = [line for line in lines if line.startswith("srun ")]
    assert len(steps) == 2
    (head,) = (step for step in steps if "--head" in step)
    (others,) = (step for step in steps if "--address=a1:20123" in step)
    assert "--nodelist=a1" in head
    assert "--port=20123" in head
    assert "--nodes=2 --ntasks=2 --exclude=a1" in others
    for step in steps:  # a lost node may end neither the step nor the other nodes
        assert "--no-kill --kill-on-bad-exit=0 --wait=0" in step
        assert "--num-cpus=16" in step
    assert lines.count("token 64 token") == 2
    (pipeline,) = (line for line in lines if line.startswith("snakemake "))
    assert "--profile profiles/slurm --cores 27 tables/main.tex" in pipeline  # 24 workers, and some waiting
    assert "set=[run.workers=24, run.gpus_per_worker=1, run.dtype=bfloat16] experiment=paper" in pipeline
    assert pipeline.endswith("on a1:20123")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"SLURM_GPUS_ON_NODE": "8", "GPUS_PER_WORKER": "0.5"}, "run.workers=48, run.gpus_per_worker=0.5]"),
        ({}, "run.workers=48, run.gpus_per_worker=0]"),
        ({"WORKERS": "7"}, "run.workers=7, run.gpus_per_worker=0]"),
    ],
)
def test_workers_are_as_many_as_fit(submit, tmp_path, environment, expected):
    assert submit(**environment).wait(120) == 0
    assert any(expected in line for line in said(tmp_path))


def test_the_signal_before_the_end_interrupts_the_pipeline_and_is_waited_for(submit, tmp_path):
    process = submit(LONG="1000")
    until = time.monotonic() + 120
    while not any(line.startswith("snakemake") for line in said(tmp_path)):
        assert time.monotonic() < until
        time.sleep(0.05)
    process.terminate()
    assert process.wait(120) == 3
    assert said(tmp_path)[-1] == "interrupted"


def test_a_cluster_that_does_not_start_is_told(submit, tmp_path):
    for name, body in (("ray", "exit 1"), ("sleep", "exit 0")):
        (tmp_path / ".venv/bin" / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / ".venv/bin" / name).chmod(0o755)
    process = submit()
    assert process.wait(120) == 1
    assert b"Ray did not start on a1" in process.stderr.read()
    assert not any(line.startswith("snakemake") for line in said(tmp_path))


def test_the_profile_s_words_are_snakemake_s():
    from snakemake.cli import get_argument_parser

    known = {word for action in get_argument_parser()._actions for word in action.option_strings}
    settings = yaml.safe_load((SCRIPT.parent / "config.yaml").read_text())
    assert settings
    assert {f"--{key}" for key in settings} <= known


def test_the_script_passes_shellcheck():
    subprocess.run([Path(sys.executable).with_name("shellcheck"), SCRIPT], check=True)
