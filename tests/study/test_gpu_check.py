"""`make gpu-check` on the CPU: it passes, and it fails when results differ."""

import pytest
from benchmarks import gpu

from cpmlho.study.results import Observer


@pytest.mark.slow
def test_the_cpu_repeats_itself_resumes_and_agrees_with_itself():
    rows = list(gpu.check("cpu", ["fixed", "delta_stn"]))
    assert {(row["repeats"], row["resumes"], row["agrees"]) for row in rows} == {(True, True, True)}
    assert [row["method"] for row in rows] == ["fixed", "delta_stn"] * 2


@pytest.mark.slow
def test_a_device_that_does_not_repeat_itself_is_found(monkeypatch):
    count = iter(range(99))
    monkeypatch.setattr(gpu, "losses", lambda folder: [{"val_loss": float(next(count))}])
    monkeypatch.setattr(gpu, "StopAfterFirst", Observer)
    (row,) = list(gpu.check("cpu", ["fixed"]))[:1]
    assert (row["repeats"], row["resumes"], row["agrees"]) == (False, False, False)
