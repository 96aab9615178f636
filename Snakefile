# The replication as a workflow: data -> run -> tables, figures -> report -> summary. The protocol is config.yaml.
#
#   snakemake --cores 4 all        everything
#   snakemake --cores 4 tables     the tables, and the runs that they need
#   snakemake --cores 4 figures    the figures, and the runs that they need
#   snakemake --cores 4 --until data                   the data alone
#   snakemake --cores 4 all --config overlay=FILE      with the settings of FILE over config.yaml
#   snakemake --report all.html    Snakemake's own report: every output with its caption, and the graph of jobs
#
# A run is done if its result.json has the settings of the protocol and the present NUMERICS
# (src/cpmlho/study/numerics.py). Tables, figures and report depend on the content of the runs and of the code that
# makes them. File times and paths do not matter, so results and clones can be copied and moved.
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
    start()


onsuccess:
    conclude()


onerror:
    conclude_early()
