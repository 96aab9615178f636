"""Helpers for tests that train runs or start the workflow."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

from cpmlho.study import plugins
from cpmlho.study.archive import ARCHIVE, CHECKSUM, unpack
from cpmlho.study.compare import TIMES
from cpmlho.study.results import RESULT, read_rows

ROOT = Path(__file__).parents[1]


def content(folder):
    """Return the tables and the result of a run without times."""
    tables = {
        path.name: [{k: v for k, v in row.items() if k not in TIMES} for row in read_rows(path)]
        for path in folder.glob("*.csv")
    }
    result = json.loads((folder / RESULT).read_text())
    return tables, {k: v for k, v in result.items() if k not in TIMES}


def start(*arguments, folder, tree=ROOT, background=False, errors=subprocess.PIPE, **changes):
    """Start the workflow of `tree` in `folder`, in a process group of its own, on the CPU; return the process.

    Its tracking store lies in the folder. In the background of a script it ignores SIGINT.

    Args:
        arguments: of Snakemake.
        folder: the working directory.
        tree: the checkout whose code runs.
        background: whether it runs as in the background.
        errors: where its standard error goes.
        changes: environment variables; None unsets one.
    """
    changes = {"PYTHONPATH": str(tree / "src"), "CUDA_VISIBLE_DEVICES": "", "MLFLOW_TRACKING_URI": None, **changes}
    environment = {name: value for name, value in (os.environ | changes).items() if value is not None}
    shell = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"] if background else []
    command = [*shell, sys.executable, "-m", "snakemake", "--snakefile", tree / "Snakefile", *arguments]
    options = {"cwd": folder, "env": environment, "text": True, "start_new_session": True}
    if not background:  # also where the tests themselves are in a background that ignores it
        options["preexec_fn"] = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, **options, stdout=subprocess.PIPE, stderr=errors)


def snakemake(*arguments, **options):
    """Run the workflow as `start` does, to its end; return what has ended."""
    process = start(*arguments, **options)
    said, errors = process.communicate(timeout=1800)
    return subprocess.CompletedProcess(process.args, process.returncode, said, errors)


def forget(before):
    """Restore the registries to `before`, and forget the loaded plug-ins."""
    plugins._LOADED.clear()
    for each, earlier in zip(plugins.REGISTRIES, before, strict=True):
        each.clear()
        each.update(earlier)


def unpacked(edition, folder):
    """Unpack the runs of a published protocol into a folder, without tables and figures, and return it."""
    for name in (ARCHIVE, CHECKSUM):
        (folder / name).symlink_to(ROOT / "results" / edition / name)
    unpack(str(folder), lambda line: None)
    return folder
