# The replication as a workflow: data -> run -> tables, figures -> report -> summary.
# Each rule is the verb of `python -m cpmlho` with the same name; the protocol is config.yaml, changed by `--config overlay=FILE`.
#
#   snakemake --cores 4 all        everything
#   snakemake --cores 4 tables     tables 1-3, the evidence, and the runs that they need
#   snakemake --cores 4 figures    figures 1-4 and the runs that they need
#   snakemake --cores 4 report     the report, results/report.html
#   snakemake --report all.html    Snakemake's own: every output with its caption and the DAG, afterwards
import signal

from snakemake.utils import min_version

min_version("9.0")


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/runs.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        rules.tables.output,
        rules.figures.output,
        rules.report.output,
        rules.summary.output,


onstart:
    hold_results()
    signal.signal(signal.SIGTERM, stop)


onsuccess:
    store = f" --backend-store-uri {protocol.tracking.uri}" if protocol.tracking.uri else ""
    print(f"Report:  {RESULTS}/report.html")
    print(f"Tables:  {RESULTS}/tables   (table1.md to table3.md)")
    print(f"Figures: {RESULTS}/figures  (figure1.png to figure4.png)")
    print(f'Runs:    mlflow ui{store}   then switch to "Model training", top left')


onerror:
    print("Not everything was made; the lines above say why. What is finished is kept:")
    print("the same command goes on from there.")
