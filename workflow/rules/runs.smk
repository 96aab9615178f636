rule run:
    input:
        data=rules.data.output,
        values=values_of,
    output:
        result=str(RUN / RESULT),
        history=str(RUN / HISTORY),
    log:
        f"{RESULTS}/logs/run/{{dataset}}/{{method}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/run/{{dataset}}/{{method}}/seed{{seed}}.tsv"
    priority: length_of
    retries: 0
    threads: threads_of
    resources:
        mem_mb=1500,
        gpu=int(bool(GPUS)),  # profiles/default limits how many runs share the GPUs at a time
        cuda=gpu_of,  # no parameter: which GPU it was must not make a run stale
    params:
        spec=lambda wildcards: spec_of(wildcards).model_dump_json(),
        code=lambda wildcards: code_digest(spec_of(wildcards).settings.algorithm),
        results_dir=RESULTS,
    message:
        "{wildcards.dataset}: {wildcards.method}, seed {wildcards.seed}"
    shell:
        "CUDA_VISIBLE_DEVICES={resources.cuda:q} {PY:q} -m cpmlho run --spec {params.spec:q}"
        " --results-dir {params.results_dir:q} --threads {threads} 2>&1 | tee -i {log:q}"
