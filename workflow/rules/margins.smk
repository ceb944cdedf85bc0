# Margins: the reward model and the scorers of pairs. Made once for all methods and seeds; one rule for each scorer, which
# waits only for what that scorer reads.
# In: pairs.parquet, pair_tokens.parquet, the SFT start, what score_reference made, a policy.
# Out: reward_model/, margins/{scorer}.parquet.


rule train_reward_model:
    input:
        tokens="<cell>/pair_tokens.parquet",
        pairs="<cell>/pairs.parquet",
        start=PLAN.start_manifest,
    output:
        manifest="<cell>/reward_model/manifest.json",
        log="<cell>/reward_model/train.parquet",
        report="<cell>/reward_model/report.json",
    log:
        "logs/{study}/train_reward_model/{dataset}-{model}-{shared}.log",
    benchmark:
        "<study>/benchmarks/train_reward_model/{dataset}-{model}-{shared}.jsonl"
    conda:
        "../../envs/train.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        gpu=1,
    params:
        reward_model=PLAN.reward_model_params,
        seed=PLAN.shared_seed("reward_model"),
        code=PLAN.code("train_reward_model"),
    message:
        "Training the reward model of {wildcards.dataset}"
    script:
        "../scripts/train_reward_model.py"


rule score_reward_model:
    input:
        tokens="<cell>/pair_tokens.parquet",
        reward_model="<cell>/reward_model/manifest.json",
    output:
        margins="<cell>/margins/reward_model.parquet",
    log:
        "logs/{study}/score_reward_model/{dataset}-{model}-{shared}.log",
    benchmark:
        "<study>/benchmarks/score_reward_model/{dataset}-{model}-{shared}.jsonl"
    conda:
        "../../envs/train.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        gpu=1,
    params:
        code=PLAN.code("score_reward_model"),
    message:
        "Scoring the margins of {wildcards.dataset}: reward_model"
    script:
        "../scripts/score_reward_model.py"


rule score_dataset_ratings:
    input:
        pairs="<cell>/pairs.parquet",
    output:
        margins="<cell>/margins/dataset_ratings.parquet",
    log:
        "logs/{study}/score_dataset_ratings/{dataset}-{model}-{shared}.log",
    benchmark:
        "<study>/benchmarks/score_dataset_ratings/{dataset}-{model}-{shared}.jsonl"
    conda:
        "../../envs/train.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        code=PLAN.code("score_dataset_ratings"),
    message:
        "Scoring the margins of {wildcards.dataset}: dataset_ratings"
    script:
        "../scripts/score_dataset_ratings.py"


rule score_held_out_loss:
    input:
        tokens="<cell>/pair_tokens.parquet",
        reference="<cell>/reference.parquet",
        frozen="<cell>/frozen.safetensors",
        start=PLAN.start_manifest,
    output:
        margins="<cell>/margins/held_out_loss.parquet",
    log:
        "logs/{study}/score_held_out_loss/{dataset}-{model}-{shared}.log",
    benchmark:
        "<study>/benchmarks/score_held_out_loss/{dataset}-{model}-{shared}.jsonl"
    conda:
        "../../envs/train.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        gpu=1,
    params:
        format=PLAN.format,
        held_out=PLAN.held_out_params,
        seed=PLAN.shared_seed("reward_model"),
        code=PLAN.held_out_code(),
    message:
        "Scoring the margins of {wildcards.dataset}: held_out_loss"
    script:
        "../scripts/score_held_out_loss.py"


rule score_implicit_reward:
    input:
        tokens="<cell>/pair_tokens.parquet",
        reference="<cell>/reference.parquet",
        start=PLAN.start_manifest,
        policy=PLAN.implicit_policy,
    output:
        margins="<cell>/margins/implicit_reward.parquet",
    log:
        "logs/{study}/score_implicit_reward/{dataset}-{model}-{shared}.log",
    benchmark:
        "<study>/benchmarks/score_implicit_reward/{dataset}-{model}-{shared}.jsonl"
    conda:
        "../../envs/train.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        gpu=1,
    params:
        format=PLAN.format,
        implicit=PLAN.implicit_params,
        code=PLAN.code("score_implicit_reward"),
    message:
        "Scoring the margins of {wildcards.dataset}: implicit_reward"
    script:
        "../scripts/score_implicit_reward.py"


rule score_hub_reward_model:
    input:
        pairs="<cell>/pairs.parquet",
        tokens="<cell>/pair_tokens.parquet",
        sanity=PLAN.sanity_set,
    output:
        margins="<cell>/margins/hub_reward_model.parquet",
    log:
        "logs/{study}/score_hub_reward_model/{dataset}-{model}-{shared}.log",
    benchmark:
        "<study>/benchmarks/score_hub_reward_model/{dataset}-{model}-{shared}.jsonl"
    conda:
        "../../envs/train.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        gpu=1,
    params:
        format=PLAN.format,
        reward_model=PLAN.hub_reward_params,
        code=PLAN.code("score_hub_reward_model"),
    message:
        "Scoring the margins of {wildcards.dataset}: hub_reward_model"
    script:
        "../scripts/score_hub_reward_model.py"
