# The SFT start, from which every method and the reward model begin, and the candidate answers sampled from it.
# In: texts.parquet. Out: sft/manifest.json (weights beside it), candidates.parquet.
# Steps: prepare_model -> train_sft -> sample_candidates. Large weights travel as a small manifest with hashes.


rule prepare_model:
    output:
        manifest="<study>/models/{model}/manifest.json",
    log:
        "logs/{study}/prepare_model/{model}.log",
    benchmark:
        "<study>/benchmarks/prepare_model/{model}.jsonl"
    conda:
        "../../envs/train.yaml"
    threads: 1
    resources:
        mem_mb=3000,
    params:
        name="{model}",
        model=PLAN.model_params,
        code=PLAN.code("prepare_model"),
    message:
        "Preparing model {wildcards.model}"
    script:
        "../scripts/prepare_model.py"


rule train_sft:
    input:
        texts="<corpus>/texts.parquet",
        model="<study>/models/{model}/manifest.json",
    output:
        manifest="<start>/sft/manifest.json",
        log="<start>/sft/train.parquet",
    log:
        "logs/{study}/train_sft/{corpus}-{model}-{shared}.log",
    benchmark:
        "<study>/benchmarks/train_sft/{corpus}-{model}-{shared}.jsonl"
    conda:
        "../../envs/train.yaml"
    threads: 2
    resources:
        mem_mb=4000,
        gpu=1,
    params:
        format=PLAN.format,
        sft=PLAN.sft_params,
        seed=PLAN.shared_seed("sft"),
        code=PLAN.code("train_sft"),
    message:
        "Training the SFT start of {wildcards.model} on {wildcards.corpus}"
    script:
        "../scripts/train_sft.py"


rule sample_candidates:
    input:
        texts="<corpus>/texts.parquet",
        start="<start>/sft/manifest.json",
    output:
        candidates="<start>/candidates.parquet",
    log:
        "logs/{study}/sample_candidates/{corpus}-{model}-{shared}.log",
    benchmark:
        "<study>/benchmarks/sample_candidates/{corpus}-{model}-{shared}.jsonl"
    conda:
        "../../envs/generate.yaml"
    threads: 2
    resources:
        mem_mb=4000,
        gpu=1,
    params:
        format=PLAN.format,
        decoding=PLAN.candidate_params,
        seed=PLAN.shared_seed("data"),
        code=PLAN.code("sample_candidates"),
    message:
        "Sampling candidate answers from the SFT start of {wildcards.model}"
    script:
        "../scripts/sample_candidates.py"
