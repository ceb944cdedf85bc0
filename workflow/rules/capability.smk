# Capability: did training cost something elsewhere? lm-eval on the same tasks before and after.
# In: policy/manifest.json, texts.parquet (held-out perplexity). Out: capability/{task}.json, per-sample values included.
# The start is checked first: its hidden states under the blocks that adapters train serve every policy's check.


rule measure_capability:
    input:
        policy="<trained_run>/policy/manifest.json",
        texts=PLAN.in_corpus("texts.parquet"),
        start_rows=PLAN.capability_rows,
    output:
        capability=directory("<trained_run>/capability"),
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


use rule measure_capability as measure_capability_of_start with:
    input:
        policy="<start_run>/policy/manifest.json",
        texts=PLAN.in_corpus("texts.parquet"),
    output:
        capability=directory("<start_run>/capability"),
        rows="<start_run>/capability_rows.safetensors",
    priority: 40  # every policy's check waits for it
    params:
        format=PLAN.format,
        capability=PLAN.capability_params,
        last_layers=PLAN.last_layers,
        code=PLAN.code("measure_capability"),
