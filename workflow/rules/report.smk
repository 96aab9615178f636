RUN_RESULTS = [str(run_dir(RESULTS, key) / RESULT) for key in KEYS]
REPORTING = [
    str(path)
    for path in [SOURCE / "results.py", *sorted(SOURCE.glob("reporting/*"))]
    if path.is_file() and not path.name.startswith(".")
]
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
                f"{RESULTS}/tables/variants.{kind}",
                caption="../report/variants.rst",
                category="Tables",
                labels={"Table": "variants", "File": kind},
            )
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
        f"Tables 1-3 from {len(KEYS)} runs"
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
            for number in (1, 2)
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
        f"Figures 1-2 from {len(KEYS)} runs"
    shell:
        "{PY:q} -m cpmlho figures --protocol {params.protocol:q} 2>&1 | tee -i {log:q}"


rule summary:
    # Puts the tables and figures beside the runs in MLflow; what it writes there is no file of the workflow.
    input:
        rules.tables.output,
        rules.figures.output,
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
        "Tables and figures to MLflow"
    shell:
        "{PY:q} -m cpmlho summary --protocol {params.protocol:q} 2>&1 | tee -i {log:q}"
