from cpmlho.study.made import SUMS
from cpmlho.study.report.figures import KINDS, made_by
from cpmlho.study.report.tables import EVIDENCE, TABLES


def made_from(wildcards):
    """Evaluated again when the runs are there: Snakemake records it, and repeats the rule if it changes."""
    return plan.made_from()


def from_runs(rule):
    """Wait for all runs; repeat the rule if Snakemake has no record of its output, as when that was copied here."""

    def results(wildcards):
        output = workflow.get_rule(rule).output[0]
        if workflow.persistence.metadata(output) is None:
            workflow.dag.forcefiles.add(str(output))
        return plan.results

    return results


rule tables:
    """Tables 1-3, all runs as one table, and the evidence."""
    input:
        from_runs("tables"),
    output:
        f"{RESULTS}/tables/{SUMS}",
        *[
            report(
                f"{RESULTS}/tables/{name}.{kind}",
                caption=f"../report/{name}.rst",
                category="Evidence" if kinds == EVIDENCE else "Tables",
                labels={"Table": name.replace("_", " "), "File": kind},
            )
            for name, kinds in TABLES.items()
            for kind in kinds
        ],
    log:
        f"{RESULTS}/logs/tables.log",
    benchmark:
        f"{RESULTS}/benchmarks/tables.tsv"
    params:
        made_from=made_from,
    message:
        f"Tables 1-3 and the evidence from {len(plan.keys)} runs"
    shell:
        "{PY:q} -m cpmlho tables --config {PROTOCOL:q} 2>&1 | tee -i {log:q}"


rule figures:
    """The figures that the protocol has runs for, and what they draw."""
    input:
        rules.tables.output,
        from_runs("figures"),
    output:
        f"{RESULTS}/figures/{SUMS}",
        *[
            report(
                f"{RESULTS}/figures/{name}.{kind}",
                caption=ROOT / "src" / "cpmlho" / "study" / "report" / "figures" / f"{name}.rst",
                category="Figures",
                labels={"Figure": name.replace("_", " "), "File": kind},
            )
            for name in made_by(protocol)
            for kind in KINDS
        ],
    log:
        f"{RESULTS}/logs/figures.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures.tsv"
    params:
        made_from=made_from,
    message:
        f"Figures from {len(plan.keys)} runs"
    shell:
        "{PY:q} -m cpmlho figures --config {PROTOCOL:q} 2>&1 | tee -i {log:q}"


rule report:
    """The page that answers, with the way from each number to its run."""
    input:
        rules.tables.output,
        rules.figures.output,
        from_runs("report"),
    output:
        report(
            f"{RESULTS}/report.html",
            caption="../report/report.rst",
            category="Report",
            labels={"Table": "the whole page", "File": "html"},
        ),
    log:
        f"{RESULTS}/logs/report.log",
    benchmark:
        f"{RESULTS}/benchmarks/report.tsv"
    params:
        made_from=made_from,
    message:
        f"Report from {len(plan.keys)} runs"
    shell:
        "{PY:q} -m cpmlho report --config {PROTOCOL:q} 2>&1 | tee -i {log:q}"


rule summary:
    """Put tables, figures and report beside the runs in MLflow; what it writes there is no file of the workflow."""
    input:
        rules.tables.output,
        rules.figures.output,
        rules.report.output,
    output:
        touch(f"{RESULTS}/logs/summary.done"),
    log:
        f"{RESULTS}/logs/summary.log",
    benchmark:
        f"{RESULTS}/benchmarks/summary.tsv"
    params:
        made_from=made_from,
        store=plan.store,
    message:
        "Tables, figures and report to MLflow"
    shell:
        # Status 1 says that MLflow has not got them, and no more: that costs no result.
        "({PY:q} -m cpmlho summary --config {PROTOCOL:q} || [ $? -eq 1 ]) 2>&1 | tee -i {log:q}"
