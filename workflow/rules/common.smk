# What the rules share; what is computed lies in cpmlho.study, and is tested there.
import os
import re
import sys
from pathlib import Path

ROOT = Path(workflow.basedir).resolve()  # a checkout reached through a symlink is the same checkout
sys.path.insert(0, str(ROOT / "src"))  # the code next to this workflow, whatever is installed

from snakemake.logging import logger

from cpmlho.study.command import begin, hold, left_behind, past_times, refuse, stop_on_signals
from cpmlho.study.conclusion import beside_the_published, in_mlflow, places
from cpmlho.study.files import check_folder
from cpmlho.study.jobs import find_gpus, need_server, prepare
from cpmlho.study.overview import Overview
from cpmlho.study.results import HISTORY, RESULT, data_file, run_dir
from cpmlho.study.spec import RunKey
from cpmlho.study.strict import ConfigError
from cpmlho.study.workflow import Plan, key_of, read_protocol


def start():
    """Before the first job: take the results, and announce what is to do."""
    try:
        if not workflow.local_exec:
            need_server(protocol.tracking, os.environ)
        hold(RESULTS)
        past_times(RESULTS)
        plan.write()
        begin(RESULTS, os.environ)
    except (ConfigError, OSError) as error:
        refuse(error)
    overview.begin([key_of(job.wildcards) for job in workflow.dag.needrun_jobs() if job.rule.name == "run"])
    stop_on_signals(overview.stop)


def conclude():
    """The last lines of a command that has made what was asked for, or found it made."""
    if not workflow.dryrun:
        made = {job.rule.name for job in workflow.dag.jobs}
        compared = beside_the_published(plan, ROOT) if "summary" in made else []
        lost = in_mlflow(plan) if made & {"run", "summary"} else []
        overview.end(*compared, *lost, *places(plan, made, ROOT))


def conclude_early():
    """The last lines of a command that was stopped, or in which a job failed."""
    first = "Stopped." if overview.stopped else "Not everything was made:"
    overview.end(first, *overview.failures, "What is finished is kept: the same command continues from there.")


try:
    given = workflow.config_settings
    protocol = read_protocol(ROOT, given.configfiles, given.config_args or [], sys.argv)
    protocol.check_folders()
    check_folder("--directory", ".snakemake", written=True)  # as left by root, in a container or with sudo
except ConfigError as error:
    refuse(error)
prepare(os.environ, ROOT / "src", protocol.tracking)
plan = Plan(protocol, workflow.resource_settings.cores or 1, find_gpus(protocol.device, os.environ))
overview = Overview(plan, idle=conclude)
logger.addFilter(overview)

PY = sys.executable  # plain `python` would be the PATH's, whichever snakemake was called
PROTOCOL = plan.file
RESULTS = str(Path(protocol.results_dir))
if workflow.remote_exec and left_behind(RESULTS, os.environ):
    refuse(f"{RESULTS}: this job belongs to a command that was killed; the command given since has a job of its own")


wildcard_constraints:
    dataset="|".join(map(re.escape, protocol.datasets)),
    method="|".join(map(re.escape, [*protocol.methods, *protocol.variants])),
    seed="0|[1-9][0-9]*",
