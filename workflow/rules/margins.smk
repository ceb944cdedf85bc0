# Margins: the reward model and the scorers of pairs. Made once for all methods and seeds.
# In: pairs.parquet, pair_tokens.parquet, the SFT start. Out: reward_model/, margins/{scorer}.parquet.
# Steps: train_reward_model -> score_margins.


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


rule score_margins:
    input:
        pairs="<cell>/pairs.parquet",
        tokens="<cell>/pair_tokens.parquet",
        reward_model="<cell>/reward_model/manifest.json",
    output:
        margins="<cell>/margins/{scorer}.parquet",
    log:
        "logs/{study}/score_margins/{dataset}-{model}-{shared}-{scorer}.log",
    benchmark:
        "<study>/benchmarks/score_margins/{dataset}-{model}-{shared}-{scorer}.jsonl"
    conda:
        "../../envs/train.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        gpu=1,
    params:
        code=PLAN.code("score_margins"),
    message:
        "Scoring the margins of {wildcards.dataset} with {wildcards.scorer}"
    script:
        "../scripts/score_margins.py"
