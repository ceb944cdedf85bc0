# Training: reference log-probabilities once, then each method from the same start.
# In: pair_tokens.parquet, the SFT start, margins where a method declares them. Out: reference.parquet and, per run,
# policy/manifest.json, spec.json, train.parquet. The SFT start itself is the run `sft_start`.


rule score_reference:
    input:
        tokens="<cell>/pair_tokens.parquet",
        start=PLAN.start_manifest,
    output:
        reference="<cell>/reference.parquet",
        frozen="<cell>/frozen.safetensors",
    log:
        "logs/{study}/score_reference/{dataset}-{model}-{shared}.log",
    benchmark:
        "<study>/benchmarks/score_reference/{dataset}-{model}-{shared}.jsonl"
    priority: 50  # the longest chain waits for this
    conda:
        "../../envs/train.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        gpu=1,
    params:
        format=PLAN.format,
        reference=PLAN.reference_params,
        code=PLAN.code("score_reference"),
    message:
        "Scoring the reference log-probabilities of {wildcards.dataset}"
    script:
        "../scripts/score_reference.py"


rule train_policy:
    input:
        tokens=PLAN.in_cell("pair_tokens.parquet"),
        reference=PLAN.in_cell("reference.parquet"),
        frozen=PLAN.in_cell("frozen.safetensors"),
        margins=PLAN.margins_of_method,
        start=PLAN.start_manifest,
    output:
        manifest="<run>/policy/manifest.json",
        spec="<run>/spec.json",
        log="<run>/train.parquet",
    log:
        "logs/{study}/train_policy/{dataset}-{model}-{method}-seed{seed}.log",
    benchmark:
        "<study>/benchmarks/train_policy/{dataset}-{model}-{method}-seed{seed}.jsonl"
    wildcard_constraints:
        method=PLAN.kind("methods"),
    priority: 50
    conda:
        "../../envs/train.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        gpu=1,
    params:
        format=PLAN.format,
        method=PLAN.method_params,
        training=PLAN.training_params,
        code=PLAN.policy_code,
    message:
        "Training {wildcards.method} on {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/train_policy.py"


rule adopt_start:
    input:
        start=PLAN.start_manifest,
    output:
        manifest="<start_run>/policy/manifest.json",
        spec="<start_run>/spec.json",
    log:
        "logs/{study}/adopt_start/{dataset}-{model}-{method}-seed{seed}.log",
    benchmark:
        "<study>/benchmarks/adopt_start/{dataset}-{model}-{method}-seed{seed}.jsonl"
    conda:
        "../../envs/train.yaml"
    resources:
        mem_mb=500,
    params:
        format=PLAN.format,
        code=PLAN.code("adopt_start"),
    message:
        "Taking the SFT start as the baseline, seed {wildcards.seed}"
    script:
        "../scripts/adopt_start.py"
