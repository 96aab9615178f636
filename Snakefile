# The replication as a workflow: data -> run -> tables, figures -> report -> summary. The protocol is config.yaml.
#
#   snakemake --cores 4 all        everything
#   snakemake --cores 4 tables     tables 1-3, the evidence, and the runs that they need
#   snakemake --cores 4 figures    figures 1-4 and the runs that they need
#   snakemake --cores 4 all --config overlay=FILE      with the settings of FILE over config.yaml
#   snakemake --report all.html    Snakemake's own report: every output with its caption, and the DAG
#
# A run is done if its result.json says that it was made with the settings of the protocol and the present NUMERICS
# (src/cpmlho/study/numerics.py). Tables, figures and report depend on the content of the runs and of the code that
# makes them. File times and paths decide nothing, so results and checkouts may be copied and moved.
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
