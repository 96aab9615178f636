"""Helpers for tests that train runs or start the workflow."""

import json
import os
import subprocess
import sys
from pathlib import Path

from cpmlho.study import plugins
from cpmlho.study.archive import ARCHIVE, CHECKSUM, unpack
from cpmlho.study.compare import TIMES
from cpmlho.study.results import RESULT, read_rows


def content(folder):
    """Return the tables and the result of a run without times."""
    tables = {
        path.name: [{k: v for k, v in row.items() if k not in TIMES} for row in read_rows(path)]
        for path in folder.glob("*.csv")
    }
    result = json.loads((folder / RESULT).read_text())
    return tables, {k: v for k, v in result.items() if k not in TIMES}


def snakemake(folder, target, *config, options=()):
    """Run the workflow in a folder outside the project, with a tracking store there; return the process."""
    snakefile = Path(__file__).parents[1] / "Snakefile"
    command = ["snakemake", "-s", str(snakefile), "--cores", "2", target, *options, "--config", *config]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = os.environ | {"PATH": path, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def forget(before):
    """Restore the registries to `before`, and forget the loaded plug-ins."""
    plugins._LOADED.clear()
    for each, earlier in zip(plugins.REGISTRIES, before, strict=True):
        each.clear()
        each.update(earlier)


def unpacked(edition, folder):
    """Unpack the runs of a published protocol into a folder, without tables and figures, and return it."""
    for name in (ARCHIVE, CHECKSUM):
        (folder / name).symlink_to(Path(__file__).parents[1] / "results" / edition / name)
    unpack(str(folder), lambda line: None)
    return folder
