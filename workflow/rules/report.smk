RUN_RESULTS = [str(run_dir(RESULTS, key) / RESULT) for key in KEYS]
REPORTING = [
    str(path)
    for path in [SOURCE / "study" / "results.py", *sorted(SOURCE.glob("study/report/*"))]
    if path.is_file() and not path.name.startswith(".")
]
EVIDENCE = ("verdicts", "claims", "variants", "equal_compute", "budget_study", "transfer", "optimism")
# Where the runs are tracked changes no table.
UNTRACKED = protocol.model_copy(update={"tracking": Tracking(uri=None)}).model_dump_json()


rule tables:
    input:
        results=RUN_RESULTS,
        sources=REPORTING,
    output:
        report(
            f"{RESULTS}/tables/runs.csv",
            caption="../report/runs.rst",
            category="Tables",
            labels={"Table": "all runs", "File": "csv"},
        ),
        *[
            report(
                f"{RESULTS}/tables/{name}.{kind}",
                caption=f"../report/{name}.rst",
                category="Evidence",
                labels={"Table": name.replace("_", " "), "File": kind},
            )
            for name in EVIDENCE
            for kind in ("csv", "md")
        ],
        *[
            report(
                f"{RESULTS}/tables/table{number}.{kind}",
                caption=f"../report/table{number}.rst",
                category="Tables",
                labels={"Table": str(number), "File": kind},
            )
            for number in (1, 2, 3)
            for kind in ("csv", "md", "tex")
        ],
    log:
        f"{RESULTS}/logs/tables.log",
    benchmark:
        f"{RESULTS}/benchmarks/tables.tsv"
    threads: 1
    resources:
        mem_mb=1500,
    params:
        protocol=UNTRACKED,
    message:
        f"Tables 1-3 and the evidence from {len(KEYS)} runs"
    shell:
        "{PY:q} -m cpmlho tables --protocol {params.protocol:q} 2>&1 | tee -i {log:q}"


rule figures:
    input:
        results=RUN_RESULTS,
        sources=REPORTING,
    output:
        *[
            report(
                f"{RESULTS}/figures/figure{number}.{kind}",
                caption=f"../report/figure{number}.rst",
                category="Figures",
                labels={"Figure": str(number), "File": kind},
            )
            for number in (1, 2, 3, 4)
            for kind in ("png", "svg", "csv")
        ],
    log:
        f"{RESULTS}/logs/figures.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures.tsv"
    threads: 1
    resources:
        mem_mb=1500,
    params:
        protocol=UNTRACKED,
    message:
        f"Figures 1-4 from {len(KEYS)} runs"
    shell:
        "{PY:q} -m cpmlho figures --protocol {params.protocol:q} 2>&1 | tee -i {log:q}"


rule report:
    input:
        rules.figures.output,
        results=RUN_RESULTS,
        sources=REPORTING,
    output:
        f"{RESULTS}/report.html",
    log:
        f"{RESULTS}/logs/report.log",
    benchmark:
        f"{RESULTS}/benchmarks/report.tsv"
    threads: 1
    resources:
        mem_mb=1500,
    params:
        protocol=UNTRACKED,
    message:
        f"Report from {len(KEYS)} runs"
    shell:
        "{PY:q} -m cpmlho report --protocol {params.protocol:q} 2>&1 | tee -i {log:q}"


rule summary:
    # Puts tables, figures and report beside the runs in MLflow; what it writes there is no file of the workflow.
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
        protocol=PROTOCOL,
    message:
        "Tables, figures and report to MLflow"
    shell:
        "{PY:q} -m cpmlho summary --protocol {params.protocol:q} 2>&1 | tee -i {log:q}"
