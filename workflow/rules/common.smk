# What the rules share; what is computed lies in cpmlho.study.workflow, and is tested there.
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(workflow.basedir)
SOURCE = ROOT / "src"
sys.path.insert(0, str(SOURCE))  # the code beside this workflow, whatever is installed

from snakemake.logging import logger

from cpmlho.study.command import begin, hold, left_behind, stop
from cpmlho.study.conclusion import beside_the_published, places
from cpmlho.study.overview import Overview
from cpmlho.study.protocol import ConfigError, RunKey
from cpmlho.study.results import HISTORY, RESULT, data_file, run_dir
from cpmlho.study.jobs import find_gpus, need_server, prepare
from cpmlho.study.settings import IDX_FILES
from cpmlho.study.workflow import Plan, key_of, read_protocol, relative


def refuse(message):
    """End the command with one line, where an exception would be printed with its traceback."""
    print(f"Error: {message}", file=sys.stderr, flush=True)
    os._exit(2)


def check_store():
    """End the command if its jobs run on other machines and have no tracking server."""
    try:
        if not workflow.local_exec:
            need_server(protocol.tracking, os.environ)
    except ConfigError as error:
        refuse(error)


def provide(datasets):
    """Fetch what was verified once and lies in `data.dir` no more, as after a change of that setting."""
    for name in datasets:
        dataset = protocol.datasets[name]
        raw = Path(protocol.data.dir, dataset.folder, "raw")
        if not dataset.reader and not all((raw / file).is_file() for file in IDX_FILES):
            command = [PY, "-m", "cpmlho", "data", name, "--config", PROTOCOL]
            if subprocess.run(command, check=False).returncode != 0:
                refuse(f"{name}: the data are not there")


def conclude(*lines):
    """The last lines of the command."""
    overview.end()
    print("", *lines, sep="\n", flush=True)


def conclude_well():
    """The last lines of a command that has made what was asked for, or found it made; a dry run has none."""
    if not workflow.dryrun:
        made = {job.rule.name for job in workflow.dag.jobs}
        compared = beside_the_published(plan, ROOT) if "summary" in made else []
        conclude(*compared, *places(plan, made, ROOT))


try:
    given = workflow.config_settings
    protocol = read_protocol(ROOT, given.configfiles, given.config_args or [], sys.argv)
except ConfigError as error:
    refuse(error)
prepare(os.environ, SOURCE, protocol.tracking)
plan = Plan(protocol, workflow.resource_settings.cores or 1, find_gpus(protocol.device, os.environ))
overview = Overview(plan, lambda line: print(line, file=sys.stderr, flush=True), conclude_well)
logger.addFilter(overview)

PY = sys.executable  # plain `python` would be the PATH's, whichever snakemake was called
PROTOCOL = plan.file
RESULTS = str(Path(protocol.results_dir))
if workflow.remote_exec and left_behind(RESULTS, os.environ):
    refuse(f"{RESULTS}: the command that this job is of was killed, and given again since; it has a job of its own")
RUN = run_dir(RESULTS, RunKey("{dataset}", "{method}", "{seed}"))
PACKAGE = relative(SOURCE / "cpmlho")


wildcard_constraints:
    dataset="|".join(map(re.escape, protocol.datasets)),
    method="|".join(map(re.escape, [*protocol.methods, *protocol.variants])),
    seed="0|[1-9][0-9]*",
