"""The verbs of the reporting half: tables from the runs, figures and page from the tables and the runs."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cpmlho.study.files import write_text
from cpmlho.study.hints import command
from cpmlho.study.made import intact, seal, sealed
from cpmlho.study.protocol import Protocol
from cpmlho.study.report.along import KEY
from cpmlho.study.report.figures import KINDS, made_by
from cpmlho.study.report.figures import load as load_figure
from cpmlho.study.report.frame import Study, read_csv
from cpmlho.study.report.render import latex, markdown
from cpmlho.study.report.tables import TABLES, load
from cpmlho.study.results import ResultError


def study_of(protocol: Protocol) -> Study:
    """The study of a protocol; its tables are computed from the runs."""
    return Study(protocol, lambda study, name: load(name).numbers(study))


def written(protocol: Protocol) -> Study:
    """The study of a protocol, with its tables as the verb `tables` has written them.

    Raises:
        ResultError: a table is missing, or they are of other runs than the protocol's.
    """
    folder = Path(protocol.results_dir) / "tables"
    paths = {name: folder / f"{name}.csv" for name in TABLES}
    intact(folder, [path.name for path in paths.values()], "tables")
    tables = {name: read_csv(path) for name, path in paths.items()}
    if list(tables["runs"][KEY].itertuples(index=False, name=None)) != list(protocol.keys()):
        raise ResultError(f"{paths['runs']}: of other runs than the protocol's; make the tables again")
    return Study(protocol, lambda study, name: load(name).numbers(study), tables)


def write_tables(protocol: Protocol) -> str:
    """Write every table of the registry to `tables` under the results; return a line that says so.

    Raises:
        ResultError: there is no run at all, or a result file is damaged.
    """
    study, folder = study_of(protocol), Path(protocol.results_dir) / "tables"
    there = len(study.ended)
    if not there:
        raise ResultError(
            f"{protocol.results_dir}/runs: none of the {len(study.runs)} runs of the protocol is there;"
            f" run them first: {command('run', 'DATASET', 'METHOD', 'SEED')}, or snakemake"
        )
    content = {f"{name}.{kind}": text for name in TABLES for kind, text in _files(study, name)}
    for name, text in content.items():
        write_text(folder / name, text)
    seal(folder, content)
    return f"{folder}: {len(content)} files from {there} of {len(study.runs)} runs"


def _files(study: Study, name: str) -> list[tuple[str, str]]:
    """A table's files by kind."""
    frame = study.table(name)
    grids = load(name).view(study, frame)
    texts = {
        "csv": lambda: to_csv(frame),
        "md": lambda: markdown(grids),
        "tex": lambda: latex(grids[0]),
    }
    return [(kind, texts[kind]()) for kind in TABLES[name]]


def write_figures(protocol: Protocol) -> str:
    """Write the figures that the protocol has runs for, with what each draws; return a line that says so.

    Files of figures that an earlier protocol made are removed.

    Raises:
        ResultError: a table is missing, or one along a run.
    """
    from cpmlho.study.report.figures.drawing import blank, look, save

    study, folder, names = written(protocol), Path(protocol.results_dir) / "figures", made_by(protocol)
    with look():
        for name in names:
            picture = load_figure(name)
            data = picture.data(study)
            write_text(folder / f"{name}.csv", data.to_csv(index=False, lineterminator="\n", float_format="%.8g"))
            save(blank() if data.empty else picture.draw(study, data), folder / name, protocol.note)
    files = [f"{name}.{kind}" for name in names for kind in KINDS]
    for left in {*sealed(folder)} - {*files}:
        (folder / left).unlink(missing_ok=True)
    seal(folder, files)
    return f"{folder}: {len(files)} files, {', '.join(names) or 'because the protocol has no runs that a figure shows'}"


def write_page(protocol: Protocol) -> str:
    """Write the page under the results; return a line that says so.

    Raises:
        ResultError: a table or a figure is missing.
    """
    from cpmlho.study.report.page import page

    study, path = written(protocol), Path(protocol.results_dir) / "report.html"
    write_text(path, page(study))
    made = f"{len(TABLES)} tables, {len(made_by(protocol))} figures"
    return f"{path}: {len(study.finished)} of {len(study.runs)} runs, {made}"


def to_csv(frame: pd.DataFrame) -> str:
    """A table as csv; floats keep every digit."""
    return frame.to_csv(index=False, lineterminator="\n")
