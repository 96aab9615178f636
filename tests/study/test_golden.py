"""The numbers of every method after a few steps. They may change only together with NUMERICS.

After an intended change, raise NUMERICS and write the numbers again: `python -m tests.study.test_golden`.
"""

import json
from pathlib import Path

import pytest
import torch

from cpmlho.study.data import load as load_arrays
from cpmlho.study.methods import METHODS
from cpmlho.study.numerics import NUMERICS
from cpmlho.study.problem import budget_of, problem_of
from cpmlho.study.protocol import RunKey

GOLDEN = Path(__file__).with_name("golden.json")
CASES = [(dataset, method) for dataset in ("mnist", "fashionmnist") for method in METHODS]


def last_snapshot(protocol, dataset, method):
    """Return the validation loss and the hyperparameters at the end of a run in float32."""
    spec = protocol.resolve(RunKey(dataset, method, 0))
    problem = problem_of(spec, load_arrays(spec.data, spec.data_dir), torch.device("cpu"))
    events, metrics, last = METHODS[method].train(problem, budget_of(spec, torch.float32), spec.settings), None, None
    try:
        while True:
            event, metrics = events.send(metrics), None
            if hasattr(event, "predict"):
                metrics = problem.evaluate(event.predict)
                last = {"val_loss": metrics.val_loss, **event.hyperparameters}
    except StopIteration:
        return last


def test_numerics_and_the_golden_numbers_are_raised_together():
    assert json.loads(GOLDEN.read_text())["numerics"] == NUMERICS


@pytest.mark.parametrize(("dataset", "method"), CASES)
def test_each_methods_numbers_are_the_golden_ones(small, dataset, method):
    golden = json.loads(GOLDEN.read_text())[f"{dataset}/{method}"]
    assert last_snapshot(small, dataset, method) == pytest.approx(golden, rel=1e-4)


if __name__ == "__main__":
    import tempfile

    from cpmlho.study.data import fetch
    from cpmlho.study.protocol import load

    root = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory() as folder:
        smoke = load(
            [root / "config.yaml", root / "tests/smoke.yaml"],
            {"data": {"dir": folder, "folder": str(root / "tests/data")}},
        )
        for each in smoke.datasets.values():
            fetch(each, smoke.data, lambda line: None)
        torch.set_num_threads(1)
        numbers = {f"{dataset}/{method}": last_snapshot(smoke, dataset, method) for dataset, method in CASES}
    GOLDEN.write_text(json.dumps({"numerics": NUMERICS, **numbers}, indent=1) + "\n")
