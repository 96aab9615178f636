def missing_data(wildcards):
    """Repeat the rule if the files that the record is of are not there, or not the configured ones."""
    if not plan.provided(wildcards.dataset):
        workflow.dag.forcefiles.add(str(data_file(RESULTS, wildcards.dataset)))
    return []


rule data:
    """Fetch a dataset's files and verify their checksums; the files are no output, as Snakemake would delete them."""
    input:
        missing_data,
    output:
        # Updated, not deleted first: it pins the checksum of a dataset that has a reader of its own.
        update(str(data_file(RESULTS, "{dataset}"))),
    log:
        f"{RESULTS}/logs/data/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/data/{{dataset}}.tsv"
    message:
        "{wildcards.dataset}: fetch and verify"
    shell:
        "{PY:q} -m cpmlho data {wildcards.dataset} --config {PROTOCOL:q} 2>&1 | tee -i {log:q}"
