rule run:
    """Train one dataset, method and seed; only its settings and the code that decides its numbers repeat it."""
    input:
        data=rules.data.output,
        values=plan.values,
    output:
        result=str(RUN / RESULT),
        history=str(RUN / HISTORY),
    log:
        f"{RESULTS}/logs/run/{{dataset}}/{{method}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/run/{{dataset}}/{{method}}/seed{{seed}}.tsv"
    priority: plan.length
    threads: plan.threads
    resources:
        mem_mb=1500,
        gpu=int(bool(plan.gpus)),  # profiles/default limits how many runs share the GPUs at a time
        cuda=plan.gpu,  # no parameter: which GPU it was must not make a run stale
    params:
        settings=plan.decisive,
        code=plan.code,
    message:
        "{wildcards.dataset}: {wildcards.method}, seed {wildcards.seed}"
    shell:
        "CUDA_VISIBLE_DEVICES={resources.cuda:q} {PY:q} -m cpmlho run {wildcards.dataset} {wildcards.method}"
        " {wildcards.seed} --config {PROTOCOL:q} --threads {threads} 2>&1 | tee -i {log:q}"
