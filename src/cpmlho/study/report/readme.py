"""The answer in the README, made from the tables of the published protocol.

`python -m cpmlho.study.report.readme` writes it between its markers in README.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cpmlho.study.files import write_text
from cpmlho.study.protocol import load
from cpmlho.study.report.answer import centred, differences, findings, headline, means, paper_row, uncentred, value
from cpmlho.study.report.frame import Study
from cpmlho.study.report.render import interval, number
from cpmlho.study.report.rules import PAPERS
from cpmlho.study.report.tables.hypotheses import MAIN, NOT_TESTED
from cpmlho.study.report.write import written

BEGIN, END = "<!-- answer: python -m cpmlho.study.report.readme -->", "<!-- end -->"
SHOWN, OF_LITTLE_DATA = ("Verdicts", "Divergence"), ("Without planes",)  # findings
ROWS = {
    "CPMLHO on Δ-STN, minus Δ-STN": ("cpmlho", PAPERS),
    "CPMLHO on Δ-STN, minus no tuning": ("cpmlho", "fixed"),
    "CPMLHO on STN, minus Δ-STN": ("cpmlho_uncentred", PAPERS),
    "CPMLHO on STN, minus STN": ("cpmlho_uncentred", "stn"),
}
MATCHED = "CPMLHO on STN, minus Δ-STN, at equal training loss"


def block(root: Path) -> str:
    """The answer in Markdown, from the tables under `results` in this folder.

    Raises:
        ResultError: a table is missing or damaged.
    """
    study, little = _study(root, "published"), _study(root, "small_data")
    said = [f"**{headline(study)}**", centred(study), uncentred(study), f"**{headline(little)}**", means(little)]
    lines = [" ".join(filter(None, said)), "", *_table(study), "", *_hypotheses(little), ""]
    for shown, of in ((OF_LITTLE_DATA, little), (SHOWN, study)):
        lines += [f"- **{keyword}.** {text}" for keyword, text in findings(of) if keyword in shown]
    return "\n".join(lines) + "\n"


def _study(root: Path, name: str) -> Study:
    protocol = load([root / "config.yaml", root / "workflow" / f"{name}.yaml"])
    run = protocol.model_copy(
        update={
            "results_dir": str(root / protocol.results_dir),
            "multiverse": protocol.multiverse and str(root / protocol.multiverse),
        }
    )
    return written(run)


def _table(study: Study) -> Iterator[str]:
    datasets, matched = study.protocol.run.datasets, study.table("matched")
    found = {words: differences(study, *pair) for words, pair in ROWS.items()}
    found[MATCHED] = matched[matched["method"] == "cpmlho_uncentred"]
    yield f"| final validation loss: difference [95 % interval], seeds | {' | '.join(map(study.folder, datasets))} |"
    yield f"|{'---|' * (1 + len(datasets))}"
    yield f"| *the paper: CPMLHO minus Δ-STN* | {' | '.join(paper_row(study))} |"
    for words, rows in found.items():
        by_dataset = rows.set_index("dataset")
        cells = [f"{value(row)}, n = {row.difference_n_seeds}" for row in by_dataset.loc[datasets].itertuples()]
        yield f"| {words} | {' | '.join(cells)} |"


def _hypotheses(study: Study) -> Iterator[str]:
    """The main hypotheses of the runs on little data, and those about further datasets, a row each."""
    yield "| test loss, 2,000 training examples: difference [interval after Holm's correction], seeds | | verdict |"
    yield "|---|---|---|"
    rows = study.table("hypotheses")
    further = ~rows["dataset"].isin(study.protocol.run.datasets)
    for row in rows[further | (rows["family"] == MAIN)].to_dict("records"):
        found = f"{number(row['difference_mean'], 3, '+')} {interval(row['corrected_low'], row['corrected_high'], 3)}"
        diverged = f", {row['diverged']} diverged" if row["diverged"] else ""
        tested = row["verdict"] != NOT_TESTED
        cell = f"{found}, n = {row['difference_n_seeds']}{diverged}" if tested else ""
        yield f"| {row['claim']} | {cell} | {row['verdict']} |"


def main() -> None:
    """Write the block into README.md."""
    path = Path("README.md")
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    write_text(path, f"{before}{BEGIN}\n{block(Path())}{end}{after}")


if __name__ == "__main__":
    main()
