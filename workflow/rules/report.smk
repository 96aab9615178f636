from cpmlho.study.report.figures import FIGURES, KINDS
from cpmlho.study.report.tables import EVIDENCE, TABLES

RUN_RESULTS = [str(run_dir(RESULTS, key) / RESULT) for key in KEYS]
REPORTING = [
    str(path)
    for path in [SOURCE / "study" / "results.py", *sorted(SOURCE.glob("study/report/**/*"))]
    if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
]
# Where the runs are tracked changes no table.
UNTRACKED = protocol.model_copy(update={"tracking": Tracking(uri=None)}).model_dump_json()


rule tables:
    input:
        results=RUN_RESULTS,
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
        protocol=UNTRACKED,
    message:
        f"Tables 1-3 and the evidence from {len(KEYS)} runs"
    shell:
        "{PY:q} -m cpmlho tables --protocol {params.protocol:q} 2>&1 | tee -i {log:q}"


rule figures:
    input:
        rules.tables.output,
        results=RUN_RESULTS,
        sources=REPORTING,
    output:
        *[
            report(
                f"{RESULTS}/figures/{name}.{kind}",
                caption=f"../report/{name}.rst",
                category="Figures",
                labels={"Figure": name.removeprefix("figure"), "File": kind},
            )
            for name in FIGURES
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
        protocol=UNTRACKED,
    message:
        f"Figures 1-4 from {len(KEYS)} runs"
    shell:
        "{PY:q} -m cpmlho figures --protocol {params.protocol:q} 2>&1 | tee -i {log:q}"


rule report:
    input:
        rules.tables.output,
        rules.figures.output,
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
