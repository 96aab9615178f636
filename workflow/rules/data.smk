rule data:
    """Fetch a dataset's files and verify their checksums; the files are no output, as Snakemake would delete them."""
    input:
        sources=[str(PACKAGE / "study" / "data.py")],
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
        # What must be there, not where: another place with the same files must repeat no run.
        wanted=lambda wildcards: (
            protocol.datasets[wildcards.dataset].folder,
            protocol.datasets[wildcards.dataset].sha256,
        ),
    message:
        "{wildcards.dataset}: fetch and verify"
    shell:
        "{PY:q} -m cpmlho data {wildcards.dataset} --config {PROTOCOL:q} 2>&1 | tee -i {log:q}"
