# The replication as a workflow: data -> run -> tables, figures -> report -> summary.
# Each rule is the verb of `python -m cpmlho` with the same name; the protocol is config.yaml, changed by `--config overlay=FILE`.
#
#   snakemake --cores 4 all        everything
#   snakemake --cores 4 tables     tables 1-3, the evidence, and the runs that they need
#   snakemake --cores 4 figures    figures 1-4 and the runs that they need
#   snakemake --cores 4 report     the report, results/report.html
#   snakemake --report all.html    Snakemake's own: every output with its caption and the DAG, afterwards
#
# `snakemake --lint` has two kinds of remark, both meant so: no rule has a conda environment or container, as all run in the
# one that `make` or environment.yml sets up; and shell lines use PY and PROTOCOL from outside, as neither which Python nor
# where the protocol's file lies may make a run stale. What must, is among the params.
import signal

from snakemake.utils import min_version

min_version("9.0")


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/runs.smk"
include: "workflow/rules/report.smk"


rule all:
    """Everything: runs, tables, figures, report, and all of it in MLflow."""
    default_target: True
    input:
        rules.tables.output,
        rules.figures.output,
        rules.report.output,
        rules.summary.output,


onstart:
    check_store()
    hold(RESULTS, refuse)
    plan.write()
    begin(RESULTS, os.environ)
    signal.signal(signal.SIGTERM, stop)
    planned = list(workflow.dag.needrun_jobs())
    keys = [key_of(job.wildcards) for job in planned if job.rule.name == "run"]
    fetched = {job.wildcards.dataset for job in planned if job.rule.name == "data"}
    provide({key.dataset for key in keys} - fetched)
    overview.begin(keys)


onsuccess:
    conclude_well()


onerror:
    kept = "What is finished is kept: the same command goes on from there."
    conclude("Not everything was made.", *overview.failures, kept)
