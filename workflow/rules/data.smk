rule data:
    """Fetch a dataset's files and verify their checksums; the files are no output, as Snakemake would delete them."""
    input:
        sources=[str(PACKAGE / "study" / "data.py")],
    output:
        # Updated, not deleted first: it pins the checksum of a dataset that has a reader of its own.
        update(str(data_file(RESULTS, "{dataset}"))),
    log:
        f"{RESULTS}/logs/data/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/data/{{dataset}}.tsv"
    threads: 1
    resources:
        mem_mb=1500,
    params:
        wanted=plan.wanted,
    message:
        "{wildcards.dataset}: fetch and verify"
    shell:
        "{PY:q} -m cpmlho data {wildcards.dataset} --config {PROTOCOL:q} 2>&1 | tee -i {log:q}" " && touch {output:q}"
