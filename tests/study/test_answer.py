"""The answer in plain words: what it says for a gain, for none, and where the runs do not suffice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_multiverse import made
from test_reporting import load, text

from cpmlho.study.files import write_text
from cpmlho.study.protocol import Protocol
from cpmlho.study.report.answer import answer, beside, curve, findings, headline
from cpmlho.study.report.write import study_of, write_figures, write_page, write_tables
from cpmlho.study.results import ResultError

METHODS = ["cpmlho", "cpmlho_uncentred", "stn", "delta_stn", "fixed"]
SPECIFICATIONS = {
    "axes": {
        "on": {"cpmlho": {"base": "cpmlho"}},
        "theta": {"t2": {"settings": {"theta": 2.0}}, "t3": {"settings": {"theta": 3.0}}},
    }
}
FIVE = [0.30, 0.31, 0.32, 0.33, 0.34]
NOISE = [0.0001, -0.0001, 0.0, 0.0001, -0.0001]


def protocol_of(folder: Path, **changes: Any) -> Protocol:
    run = {"datasets": ["mnist"], "methods": METHODS, "variants": [], "seeds": [0, 1, 2, 3, 4]}
    return load(folder, **{"run": run, **changes})


def around(gap: float) -> list[float]:
    return [loss + gap + noise for loss, noise in zip(FIVE, NOISE, strict=True)]


@pytest.mark.parametrize(
    ("gap", "said"), [(0.0, "we find no gain"), (-0.0005, "we find no gain"), (-0.01, "we find a gain")]
)
def test_the_headline_is_the_difference_in_delta_stns_network(tmp_path: Path, gap: float, said: str) -> None:
    protocol = protocol_of(tmp_path)
    made(protocol, "delta_stn", FIVE)
    made(protocol, "cpmlho", around(gap))
    assert said in headline(study_of(protocol))


def test_a_difference_that_the_seeds_cannot_tell_is_undecided(tmp_path: Path) -> None:
    protocol = protocol_of(tmp_path)
    made(protocol, "delta_stn", FIVE)
    made(protocol, "cpmlho", FIVE[::-1])
    assert "undecided" in headline(study_of(protocol))


def test_four_seeds_judge_nothing(tmp_path: Path) -> None:
    protocol = protocol_of(tmp_path)
    made(protocol, "delta_stn", FIVE[:4])
    made(protocol, "cpmlho", around(-0.1)[:4])
    study = study_of(protocol)
    assert "Too few seeds" in headline(study)
    assert list(answer(study)) == []


def test_a_lead_that_the_network_without_the_additions_has_too_is_said_to_be_so(tmp_path: Path) -> None:
    protocol = protocol_of(tmp_path)
    for method, gap in (("delta_stn", 0.0), ("cpmlho", 0.0), ("stn", -0.1), ("cpmlho_uncentred", -0.1)):
        made(protocol, method, around(gap))
    said = " ".join(answer(study_of(protocol)))
    assert "ends far below Δ-STN, but so does STN" in said
    assert "at equal training loss" not in said  # no other learning rate was run
    made(protocol, "cpmlho_uncentred", [loss - 0.2 for loss in FIVE])
    assert "below STN" in " ".join(answer(study_of(protocol)))


def test_power_and_divergence_are_told(tmp_path: Path) -> None:
    protocol = protocol_of(tmp_path)
    for method in METHODS:
        made(protocol, method, around(0.0))
    made(protocol, "delta_stn", FIVE)
    made(protocol, "stn", around(0.0), status="diverged", environment={"processor": "Z80"})
    told = dict(findings(study_of(protocol)))
    assert "+0.0000" not in told["Power"]
    assert "STN in 5 of 5 runs on Z80" in told["Divergence"]
    assert told["Verdicts"].startswith("8 claims")


def test_the_curve_of_another_protocol_is_counted_and_linked(tmp_path: Path) -> None:
    other = protocol_of(tmp_path / "curve", grids={"readings": SPECIFICATIONS})
    for name, gap in (("delta_stn", 0.0), ("cpmlho", 0.0), ("readings_cpmlho_t2", -0.1), ("readings_cpmlho_t3", 0.1)):
        made(other, name, around(gap))
    write_tables(other)
    protocol = protocol_of(tmp_path / "main", multiverse=str(tmp_path / "curve"))
    for method in ("delta_stn", "cpmlho", "cpmlho_uncentred"):
        made(protocol, method, around(0.0))
    write_tables(protocol)
    write_figures(protocol)
    write_page(protocol)
    page = text(protocol, "report.html")
    assert "Of 3 ways to fill what the paper leaves open on MNIST, 1 end below Δ-STN" in page
    assert '<a href="../curve/report.html">3 specifications</a>' in page
    (tmp_path / "curve/tables/multiverse.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(ResultError, match=r"multiverse\.csv: damaged; make it again"):
        beside(study_of(protocol), "multiverse")


def test_a_curve_that_is_not_made_is_not_mentioned(tmp_path: Path) -> None:
    protocol = protocol_of(tmp_path, multiverse=str(tmp_path / "nowhere"))
    made(protocol, "cpmlho", FIVE)
    assert curve(study_of(protocol)) is None


def test_a_protocol_without_cpmlho_judges_no_claim(tmp_path: Path) -> None:
    run = {"datasets": ["mnist"], "methods": ["delta_stn"], "variants": [], "seeds": [0, 1, 2, 3, 4]}
    protocol = load(tmp_path, run=run)
    made(protocol, "delta_stn", FIVE)
    study = study_of(protocol)
    assert "no claim of the paper is judged" in headline(study)
    assert "Verdicts" not in dict(findings(study))


def test_a_table_that_was_written_reads_as_it_was(tmp_path: Path) -> None:
    protocol = protocol_of(tmp_path)
    for method in METHODS:
        made(protocol, method, around(0.0))
    write_tables(protocol)
    from cpmlho.study.report.write import written

    for name in ("robust", "differences", "verdicts"):
        pd.testing.assert_frame_equal(
            written(protocol).table(name), study_of(protocol).table(name), check_dtype=False, check_exact=True
        )
    write_text(Path(protocol.results_dir, "tables", "robust.csv"), "")
    with pytest.raises(ResultError, match=r"robust\.csv"):
        written(protocol)


def test_on_another_split_than_the_papers_no_claim_is_judged(tmp_path: Path) -> None:
    protocol = protocol_of(tmp_path, data={"split": "random", "valid_fraction": 0.5})
    for method in METHODS:
        made(protocol, method, around(0.0))
    for make in (write_tables, write_figures, write_page):
        make(protocol)
    assert "In the paper's own setting" not in headline(study_of(protocol))
    assert list(answer(study_of(protocol))) == []
    page = text(protocol, "report.html")
    assert "<h1>CPMLHO: where tuning matters</h1>" in page
    assert 'class="matrix"' not in page
