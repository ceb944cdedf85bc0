# Online training: which pairs are labelled is decided while the policy trains. One resumable job per arm and seed.
# In: texts.parquet (pools and evaluation prompts), the SFT start, what the labeller, the judges and the labellers of
# other arms score with.
# Out: as train_policy, and beside the policy rounds.parquet, online_costs.parquet, online_metrics.parquet.
# Steps: train_online -> compare_online.


rule train_online:
    input:
        texts=PLAN.in_corpus("texts.parquet"),
        start=PLAN.start_manifest,
        labeller=PLAN.labeller_weights,
        judges=PLAN.judges_weights,
        others=PLAN.other_labellers_weights,
    output:
        manifest="<run>/policy/manifest.json",
        spec="<run>/spec.json",
        log="<run>/policy/train.parquet",
        rounds="<run>/policy/rounds.parquet",
        costs="<run>/policy/online_costs.parquet",
        metrics="<run>/policy/online_metrics.parquet",
    log:
        "logs/{study}/train_online/{dataset}-{model}-{method}-seed{seed}.log",
    benchmark:
        "<study>/benchmarks/train_online/{dataset}-{model}-{method}-seed{seed}.jsonl"
    wildcard_constraints:
        method=PLAN.kind("arms"),
    priority: 50
    conda:
        "../../envs/train.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        gpu=1,
        judge_slots=1,
    params:
        format=PLAN.format,
        arm=PLAN.arm_params,
        code=PLAN.arm_code,
    message:
        "Training {wildcards.method} online on {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/train_online.py"


rule compare_online:
    input:
        runs=PLAN.online_metrics,
    output:
        metrics="<study>/online_metrics.parquet",
        csv=report("<study>/online_metrics.csv", category="Metrics", caption="../report/online.rst"),
        md=report("<study>/online.md", category="Tables", caption="../report/online.rst"),
        tex="<study>/online.tex",
        verdicts=report("<study>/online_verdicts.csv", category="Tables", caption="../report/online.rst"),
        matrix="<study>/online_matrix.csv",
        matrix_png=report(
            "<study>/figures/labeller_judge.png",
            category="Figures",
            caption="../report/labeller_judge.rst",
        ),
        matrix_pdf="<study>/figures/labeller_judge.pdf",
        dissociation=report(
            "<study>/figures/dissociation.png",
            category="Figures",
            caption="../report/dissociation.rst",
        ),
        dissociation_pdf="<study>/figures/dissociation.pdf",
    log:
        "logs/{study}/compare_online.log",
    benchmark:
        "<study>/benchmarks/compare_online.jsonl"
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=1000,
    params:
        study=PLAN.online_params,
        code=PLAN.code("compare_online"),
    message:
        "Comparing the online arms of {wildcards.study}"
    script:
        "../scripts/compare_online.py"
