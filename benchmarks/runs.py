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
from cpmlho.study.protocol import RunKey, load
from cpmlho.study.results import RESULT, read_result, run_dir

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
    """One epoch of Delta-STN a dataset as a process of its own, and what follows for the protocol's epochs."""
    for dataset in ("mnist", "fashionmnist"):
        protocol = load([Path("config.yaml")])
        key = RunKey(dataset, "delta_stn", 0)
        epochs = protocol.datasets[dataset].epochs
        spec = protocol.resolve(key)
        spec = spec.model_copy(update={"data": spec.data.model_copy(update={"epochs": 1})})
        with TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "cpmlho", "run", "--spec", spec.model_dump_json(), "--results-dir", folder]
            # A store that exists, as for all runs but the first.
            env = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "OMP_NUM_THREADS": "1"}
            for _ in range(2):
                start = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True, env=env)
                wall = time.perf_counter() - start
                result = read_result(run_dir(folder, key) / RESULT)
                run_dir(folder, key).joinpath(RESULT).unlink()
        evaluation = result.evaluation_seconds
        fixed = wall - result.train_seconds - evaluation
        beside = fixed + epochs * evaluation
        yield {
            "dataset": dataset,
            "precision": result.precision,
            "train_seconds": result.train_seconds,
            "evaluation_seconds": evaluation,
            "fixed_seconds": fixed,
            "epochs": epochs,
            "share_beside_training": beside / (beside + epochs * result.train_seconds),
            "peak_memory_mb": result.peak_memory_mb,
        }
