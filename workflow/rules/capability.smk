# Capability: did training cost something elsewhere? lm-eval on the same tasks before and after.
# In: policy/manifest.json, texts.parquet (held-out perplexity). Out: capability/{task}.json, per-sample values included.


rule measure_capability:
    input:
        policy="<run>/policy/manifest.json",
        texts=PLAN.in_corpus("texts.parquet"),
    output:
        capability=directory("<run>/capability"),
    log:
        "logs/{study}/measure_capability/{dataset}-{model}-{method}-seed{seed}.log",
    benchmark:
        "<study>/benchmarks/measure_capability/{dataset}-{model}-{method}-seed{seed}.jsonl"
    conda:
        "../../envs/capability.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        gpu=1,
    params:
        format=PLAN.format,
        capability=PLAN.capability_params,
        code=PLAN.code("measure_capability"),
    message:
        "Checking the capability of {wildcards.method}, seed {wildcards.seed}"
    script:
        "../scripts/measure_capability.py"
