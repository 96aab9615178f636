"""The evidence beyond the paper's own tables, each as numbers and as a table to be printed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import isfinite, isnan
from typing import Any, NamedTuple

import pandas as pd

from cpmlho.study.protocol import Protocol
from cpmlho.study.report import budgets, variants
from cpmlho.study.report.aggregate import flags
from cpmlho.study.report.claims import Decided, Part, decide
from cpmlho.study.report.render import Grid, Line, Linked
from cpmlho.study.report.style import label_of, words_of

Row = Mapping[str, Any]


class Shown(NamedTuple):
    """A table of evidence."""

    grid: Grid
    frame: pd.DataFrame


def number(value: float, decimals: int = 4, sign: str = "") -> str:
    """A number with so many decimals, – where there is none."""
    return f"{value:{sign}.{decimals}f}" if isfinite(value) else "–"


def interval(row: Row, prefix: str = "", decimals: int = 4, sign: str = "+") -> str:
    """The interval of a row, – where there is none."""
    low, high = row[f"{prefix}ci_low"], row[f"{prefix}ci_high"]
    return "–" if isnan(low) else f"{low:{sign}.{decimals}f} to {high:{sign}.{decimals}f}"


def spread(row: Row, prefix: str) -> str:
    """Mean ± standard deviation over seeds."""
    deviation = row[f"{prefix}_std"]
    return number(row[f"{prefix}_mean"]) + ("" if isnan(deviation) else f" ± {deviation:.4f}")


def _words(protocol: Protocol, part: Part) -> tuple[str, Linked, str, str]:
    """Dataset, test, estimate and interval of one test; beside a bound or a printed number, of our own value."""
    numeric = part.against[0].isdigit()
    bound = float(part.against) if numeric and part.side != "printed" else 0.0
    shown = part._replace(estimate=part.estimate + bound, ci_low=part.ci_low + bound, ci_high=part.ci_high + bound)
    decimals, sign = 1 if part.quantity == "settled" else 5, "" if numeric else "+"
    against = part.against if numeric else label_of(part.against)
    side = "as printed:" if part.side == "printed" else part.side
    name = f"{label_of(part.method)}: {words_of(part.quantity)} {side} {against}"
    return (
        protocol.datasets[part.dataset].folder if part.dataset in protocol.datasets else part.dataset,
        Linked(name, f"{part.dataset}/{part.method}"),
        number(shown.estimate, decimals, sign),
        interval(shown._asdict(), decimals=decimals, sign=sign),
    )


def verdicts(protocol: Protocol, decided: list[Decided]) -> Shown:
    """One row a claim."""
    rows: list[Line] = []
    values: list[Row] = []
    for each in decided:
        claim, part = each.claim, each.decisive
        counts = {name: sum(part.decision == name for part in each.parts) for name in ("holds", "fails", "undecided")}
        tally = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        dataset, test, effect, bounds = _words(protocol, part)
        turns = Linked(f"{dataset}, {test.words}: {effect} ({bounds}), n={part.n_seeds}, {part.test}", test.runs)
        needed = each.seeds_needed
        rows.append(
            [claim.id, claim.place, claim.quote, each.verdict, tally, turns, number(each.p, 3), str(needed or "–")]
        )
        asked = {"claim": claim.id, "place": claim.place, "statement": claim.quote, "rule": claim.rule}
        found = {"verdict": each.verdict, **counts, "decisive": turns.words}
        values.append({**asked, **found, "p_holm": each.p, "seeds_needed": needed})
    header = ["Claim", "Place", "Statement", "Verdict", "Its tests", "It turns on", "p (Holm)", "Seeds to decide"]
    caption = (
        "A claim is reproduced if all its tests hold and the largest p-value stays below 0.05 after Holm's correction"
        " over the claims; not reproduced if one fails; else inconclusive. Seeds to decide: the fewest that would"
        " decide its undecided tests at the present means and spreads, – where no number would."
    )
    return Shown(Grid("Verdicts", header, rows, caption, protocol.note), pd.DataFrame(values))


def _line(protocol: Protocol, part: Part) -> Line:
    return [part.claim, *_words(protocol, part), number(part.p, 3), str(part.n_seeds), part.decision]


def tests(protocol: Protocol, decided: list[Decided]) -> Shown:
    """One row a test."""
    parts = [part for each in decided for part in each.parts]
    header = ["Claim", "Dataset", "Test", "Estimate", "95 % interval", "p", "n", "It"]
    caption = (
        "Differences and values beside a bound: mean over seeds, BCa bootstrap interval, exact two-sided sign-flip"
        " test. Printed numbers: our mean, and the interval in which one further seed lies; p is Student's, before"
        " correction."
    )
    grid = Grid("Tests", header, [_line(protocol, part) for part in parts], caption, protocol.note)
    return Shown(grid, pd.DataFrame(parts, columns=list(Part._fields)))


def _table(
    protocol: Protocol,
    label: str,
    columns: Mapping[str, Callable[[Row], str | Linked]],
    rows: Iterable[Row],
    caption: str,
) -> Shown:
    rows = list(rows)
    cells: list[Line] = [
        [protocol.datasets[row["dataset"]].folder, *(show(row) for show in columns.values())] for row in rows
    ]
    said = caption if rows else f"{caption} No run of the protocol is there to be compared."
    return Shown(
        Grid(label, ["Dataset", *columns], cells, said, protocol.note),
        pd.DataFrame(rows) if rows else pd.DataFrame(columns=["dataset"]),
    )


def _method(column: str) -> Callable[[Row], Linked]:
    return lambda row: Linked(label_of(row[column]), f"{row['dataset']}/{row[column]}")


DIFFERENCE: Mapping[str, Callable[[Row], str | Linked]] = {
    "Difference": lambda row: number(row["difference_mean"], sign="+"),
    "95 % interval": lambda row: interval(row, "difference_"),
    "n": lambda row: str(row["difference_n_seeds"]),
}


def _equal_compute(protocol: Protocol, runs: pd.DataFrame) -> Shown:
    return _table(
        protocol,
        "Equal compute",
        {
            "Method": _method("method"),
            "Trials for one Δ-STN run": lambda row: str(row["cut_trials"]),
            "Loss": lambda row: spread(row, "cut"),
            "All trials": lambda row: str(row["full_trials"]),
            "Their loss": lambda row: spread(row, "full"),
            "Cost in Δ-STN runs": lambda row: f"{row['full_cost']:.1f}",
            "n": lambda row: str(row["full_n_seeds"]),
        },
        budgets.equal_compute(protocol, runs),
        "Best validation loss of a search within the batch gradients of one Δ-STN run, and with all its trials.",
    )


def _budget_study(protocol: Protocol, runs: pd.DataFrame) -> Shown:
    return _table(
        protocol,
        "Budget study",
        {
            "Method": _method("method"),
            "Epochs": lambda row: str(row["epoch"]),
            "Loss": lambda row: number(row["loss"]),
            "Δ-STN's": lambda row: number(row["delta_stn"]),
            **DIFFERENCE,
        },
        budgets.budget_study(protocol, runs),
        "Validation loss on the way of longer runs; each method minus Δ-STN of the same budget, paired by seed.",
    )


def _transfer(protocol: Protocol, runs: pd.DataFrame) -> Shown:
    return _table(
        protocol,
        "Transfer",
        {
            "Values of": _method("source"),
            "As tuned": lambda row: spread(row, "tuned"),
            "Trained anew": lambda row: spread(row, "retrained"),
            **DIFFERENCE,
        },
        budgets.transfer(protocol, runs),
        "Final validation loss of a run that tunes, and of training from the same initialisation with the values that"
        " it ended at held fixed; anew minus tuned, paired by seed.",
    )


def _optimism(protocol: Protocol, runs: pd.DataFrame) -> Shown:
    return _table(
        protocol,
        "Validation and test",
        {
            "Method": _method("method"),
            "Validation loss": lambda row: number(row["val_loss"]),
            "Test loss": lambda row: number(row["test_loss"]),
            "Test minus validation": lambda row: number(row["gap_mean"], sign="+"),
            "95 % interval": lambda row: interval(row, "gap_"),
            "n": lambda row: str(row["gap_n_seeds"]),
        },
        budgets.optimism(runs[runs["method"].isin(protocol.run.methods)]),
        "Selection is on the validation split alone. The two splits differ in difficulty; that a gap is wider than that"
        " of training without tuning is the optimism of the validation number.",
    )


def evidence(protocol: Protocol, runs: pd.DataFrame) -> dict[str, Shown]:
    """Every table of evidence, by the name of its file."""
    decided = decide(protocol, runs)
    changes = list(variants.compare(protocol, runs))
    frame = pd.DataFrame(changes, columns=list(variants.COLUMNS))
    grid = variants.grid(protocol, changes, flags(runs))
    return {
        "verdicts": verdicts(protocol, decided),
        "claims": tests(protocol, decided),
        "variants": Shown(grid, frame),
        "equal_compute": _equal_compute(protocol, runs),
        "budget_study": _budget_study(protocol, runs),
        "transfer": _transfer(protocol, runs),
        "optimism": _optimism(protocol, runs),
    }
