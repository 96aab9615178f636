rule data:
    # The data files are no output: Snakemake deletes outputs before it makes them again, and they may be the user's.
    input:
        sources=[str(SOURCE / "study" / "data.py")],
    output:
        str(data_file(RESULTS, "{dataset}")),
    log:
        f"{RESULTS}/logs/data/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/data/{{dataset}}.tsv"
    threads: 1
    resources:
        mem_mb=1500,
    params:
        # What must be there. The rest of the protocol is no parameter: it may change without another verification.
        wanted=lambda wildcards: (
            protocol.data.dir,
            protocol.datasets[wildcards.dataset].folder,
            protocol.datasets[wildcards.dataset].sha256,
        ),
    message:
        "{wildcards.dataset}: fetch and verify"
    shell:
        "{PY:q} -m cpmlho data {wildcards.dataset} --protocol {PROTOCOL:q} 2>&1 | tee -i {log:q}"
