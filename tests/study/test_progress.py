"""The lines that a run prints while it goes."""

from pathlib import Path

import pytest

from cpmlho.study.harness.progress import Progress
from cpmlho.study.protocol import RunKey, load
from cpmlho.study.results import HISTORY

PROTOCOL = load([Path(__file__).parents[2] / "config.yaml"], {"methods": {"random_search": {"trials": 2}}})


def row(epoch):
    return {HISTORY: [{"epoch": epoch, "val_loss": 0.5, "val_acc": 0.25}]}


@pytest.mark.parametrize(("method", "where"), [("cpmlho", "epoch 0/7"), ("random_search", "trial 1/2 epoch 0/7")])
def test_an_evaluation_before_the_first_epoch_is_a_line(method, where):
    lines = []
    progress = Progress(PROTOCOL.resolve(RunKey("mnist", method, 0)), lines.append)
    progress.started(None, {})
    progress.evaluated(row(0), None)
    assert lines[-1].endswith(f"{where}  val loss 0.5000  val acc 0.2500")


def test_an_evaluation_where_an_earlier_attempt_ended_is_a_line():
    lines = []
    progress = Progress(PROTOCOL.resolve(RunKey("mnist", "random_search", 0)), lines.append)
    progress.started(None, row(7))
    assert lines[-1].endswith("resuming after trial 1/2 epoch 7/7")
    progress.evaluated(row(7), None)
    assert lines[-1].endswith("trial 1/2 epoch 7/7  val loss 0.5000  val acc 0.2500")
    progress.ticked(8)
    assert lines[-1].endswith(" left")
