from cpmlho.study.report.figures import KINDS, made_by
from cpmlho.study.report.tables import EVIDENCE, TABLES

REPORTING = [
    str(path)
    for path in [PACKAGE / "study" / "results.py", *sorted(PACKAGE.glob("study/report/**/*"))]
    if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
]


rule tables:
    """Tables 1-3, all runs as one table, and the evidence."""
    input:
        results=plan.results,
        sources=REPORTING,
    output:
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
    threads: 1
    resources:
        mem_mb=1500,
    params:
        protocol=plan.reported,
    message:
        f"Tables 1-3 and the evidence from {len(plan.keys)} runs"
    shell:
        "{PY:q} -m cpmlho tables --config {PROTOCOL:q} 2>&1 | tee -i {log:q}"


rule figures:
    """The figures that the protocol has runs for, and what they draw."""
    input:
        rules.tables.output,
        results=plan.results,
        sources=REPORTING,
    output:
        *[
            report(
                f"{RESULTS}/figures/{name}.{kind}",
                caption=SOURCE / "cpmlho" / "study" / "report" / "figures" / f"{name}.rst",
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
    threads: 1
    resources:
        mem_mb=1500,
    params:
        protocol=plan.reported,
    message:
        f"Figures from {len(plan.keys)} runs"
    shell:
        "{PY:q} -m cpmlho figures --config {PROTOCOL:q} 2>&1 | tee -i {log:q}"


rule report:
    """The page that answers, with the way from each number to its run."""
    input:
        rules.tables.output,
        rules.figures.output,
        beside=[
            path
            for name in ("multiverse", "divergence")
            if (path := Path(protocol.multiverse or "", "tables", f"{name}.csv")).is_file()
        ],
        sources=REPORTING,
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
    threads: 1
    resources:
        mem_mb=1500,
    params:
        protocol=plan.reported,
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
    threads: 1
    resources:
        mem_mb=1500,
    params:
        protocol=plan.reported,
        store=plan.store,
    message:
        "Tables, figures and report to MLflow"
    shell:
        # Status 1 says that MLflow has not got them, and no more: that costs no result.
        "({PY:q} -m cpmlho summary --config {PROTOCOL:q} || [ $? -eq 1 ]) 2>&1 | tee -i {log:q}"
