# Judging: every answer against the SFT start's answer to the same prompt, over the OpenAI protocol.
# In: two answer files. Out: judgments (one row a call), annotations (AlpacaEval's format), scores.
# A local judge is a server on loopback that the job starts and stops itself.


use rule prepare_model as prepare_judge with:
    output:
        manifest="<study>/judges/{judge}/manifest.json",
    log:
        "logs/{study}/prepare_judge/{judge}.log",
    benchmark:
        "<study>/benchmarks/prepare_judge/{judge}.jsonl"
    params:
        name="{judge}",
        model=PLAN.judge_model_params,
        code=PLAN.code("prepare_model"),
    message:
        "Preparing judge {wildcards.judge}"


rule judge_answers:
    input:
        answers="<run>/answers/{generation}/{bench}.jsonl",
        baseline=PLAN.baseline_answers,
        weights=PLAN.judge_weights,
    output:
        judgments="<run>/judgments/{generation}/{bench}/{judge}.jsonl",
        annotations="<run>/annotations/{generation}/{bench}/{judge}.json",
    log:
        "logs/{study}/judge_answers/{dataset}-{model}-{method}-seed{seed}-{generation}-{bench}-{judge}.log",
    benchmark:
        "<study>/benchmarks/judge_answers/{dataset}-{model}-{method}-seed{seed}-{generation}-{bench}-{judge}.jsonl"
    conda:
        "../../envs/judge.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        judge_slots=1,
    params:
        judge=PLAN.judge_params,
        code=PLAN.code("judge_answers"),
    message:
        "Judging {wildcards.method}, seed {wildcards.seed}, with {wildcards.judge}"
    script:
        "../scripts/judge_answers.py"


rule score_judgments:
    input:
        annotations="<run>/annotations/{generation}/{bench}/{judge}.json",
    output:
        scores="<run>/scores/{generation}/{bench}/{judge}.json",
    log:
        "logs/{study}/score_judgments/{dataset}-{model}-{method}-seed{seed}-{generation}-{bench}-{judge}.log",
    benchmark:
        "<study>/benchmarks/score_judgments/{dataset}-{model}-{method}-seed{seed}-{generation}-{bench}-{judge}.jsonl"
    conda:
        "../../envs/judge.yaml"
    resources:
        mem_mb=1000,
    params:
        code=PLAN.code("score_judgments"),
    message:
        "Scoring the judgments of {wildcards.method}, seed {wildcards.seed}"
    script:
        "../scripts/score_judgments.py"
