"""MkDocs hook: adds the committed results and the list of readings to the site."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
READINGS = ROOT / "src/cpmlho/study/report/readings.csv"
RESULTS = ("report.html", "runs.tar.xz", "tables/*", "figures/*")


def on_files(files: Any, config: Any) -> None:
    """Add pages, tables, figures and archives of the published protocols."""
    for protocol in ("published", "multiverse", "small_data"):
        for pattern in RESULTS:
            for path in sorted((ROOT / "results" / protocol).glob(pattern)):
                name = path.relative_to(ROOT).as_posix()
                files.append(File.generated(config, name, abs_src_path=str(path)))


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Point links to the results, which work in the repository, into the site, and insert the list of readings."""
    return markdown.replace("](../results/", "](results/").replace("<!-- readings.csv -->", readings())


def readings() -> str:
    """Return the list of readings as a Markdown table."""
    with READINGS.open(newline="") as file:
        rows = [[row["reading"], row["open_point"], row["choice"], row["setting"]] for row in csv.DictReader(file)]
    lines = [["", "open point", "our choice", "setting"], ["---"] * 4, *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
