"""What a whole run costs beside its training: start-up, data, evaluation, tracking."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import Row
from cpmlho.study.protocol import load
from cpmlho.study.results import RESULT, RunResult, read_result, run_dir
from cpmlho.study.spec import RunKey

COMMANDS = {
    "--help": [sys.executable, "-m", "cpmlho", "--help"],
    "import of torch": [sys.executable, "-c", "import torch"],
    "import of MLflow's client and store": [
        sys.executable,
        "-c",
        "import mlflow.tracking, mlflow.store.tracking.sqlalchemy_store",
    ],
    "snakemake -n all": [str(Path(sys.executable).with_name("snakemake")), "-n", "all", "--cores", "1", "--quiet"],
}


def commands() -> Iterator[Row]:
    """Wall seconds of commands that a user or a job waits for, the shorter of two."""
    for name, command in COMMANDS.items():
        times = []
        for _ in range(2):
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            times.append(time.perf_counter() - start)
        yield {"command": name, "seconds": min(times)}


def whole_runs() -> Iterator[Row]:
    """Delta-STN for one epoch and for two, each a process of its own, and what follows for the protocol's epochs."""
    for dataset in ("mnist", "fashionmnist"):
        epochs = load([Path("config.yaml")]).datasets[dataset].epochs
        with TemporaryDirectory() as folder:
            run_of(dataset, 1, folder)  # makes the store, which is there for all runs but the first
            (_, one), (wall, two) = (run_of(dataset, n, folder) for n in (1, 2))
        training = two.train_seconds / 2
        evaluation = two.evaluation_seconds - one.evaluation_seconds
        fixed = wall - two.train_seconds - 2 * evaluation
        beside = fixed + epochs * evaluation
        yield {
            "dataset": dataset,
            "precision": two.precision,
            "train_seconds": training,
            "evaluation_seconds": evaluation,
            "fixed_seconds": fixed,
            "epochs": epochs,
            "share_beside_training": beside / (beside + epochs * training),
            "peak_memory_mb": two.peak_memory_mb,
        }


def run_of(dataset: str, epochs: int, folder: str) -> tuple[float, RunResult]:
    """Wall seconds of a run of Delta-STN, and its result."""
    key = RunKey(dataset, "delta_stn", 0)
    overlay = Path(folder, "overlay.yaml")
    overlay.write_text(f"results_dir: {folder}\ndatasets: {{{dataset}: {{epochs: {epochs}}}}}\n")
    command = [sys.executable, "-m", "cpmlho", "run", *map(str, key)]
    command += ["--config", "config.yaml", "--config", str(overlay)]
    env = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=env)
    wall = time.perf_counter() - start
    file = run_dir(folder, key) / RESULT
    result = read_result(file)
    file.unlink()
    return wall, result
