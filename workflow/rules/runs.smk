def needs(wildcards):
    """What a run must wait for: nothing if it is done. A result that is there and was made otherwise is replaced."""
    key = key_of(wildcards)
    if not plan.done(key):
        workflow.dag.forcefiles.add(plan.result(key))
    return plan.needs(key)


RUN = run_dir(RESULTS, RunKey("{dataset}", "{method}", "{seed}"))


rule run:
    """Train one dataset, method and seed; its settings and NUMERICS alone decide whether it is repeated."""
    input:
        needs,
    output:
        result=str(RUN / RESULT),
        history=str(RUN / HISTORY),
    log:
        f"{RESULTS}/logs/run/{{dataset}}/{{method}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/run/{{dataset}}/{{method}}/seed{{seed}}.tsv"
    priority: lambda wildcards: plan.epochs(key_of(wildcards))  # the longest first, or one would be left alone at the end
    threads: plan.threads
    resources:
        gpu=int(bool(plan.gpus)),  # profiles/default limits how many runs share the GPUs at a time
        cuda=plan.gpu,  # no parameter: which GPU it was must not make a run stale
    message:
        "{wildcards.dataset}: {wildcards.method}, seed {wildcards.seed}"
    shell:
        "CUDA_VISIBLE_DEVICES={resources.cuda:q} {PY:q} -m cpmlho run {wildcards.dataset} {wildcards.method}"
        " {wildcards.seed} --config {PROTOCOL:q} --threads {threads} 2>&1 | tee -i {log:q}"
