# Judging over the OpenAI protocol: every answer beside the baseline's (AlpacaEval's protocol, Arena-Hard), or by itself
# (MT-Bench). In: answer files. Out: judgments (one row a call), the same in the benchmark's official format, scores.
# Every reply is kept in results/judgments.sqlite, which all studies share, so that nothing is asked twice.
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
        answers=PLAN.judged_answers(),
        baseline=PLAN.baseline(),
        weights=PLAN.judge_weights,
    output:
        judgments="<run>/judgments/{generation}/{bench}/{judge}.jsonl",
        annotations="<run>/annotations/{generation}/{bench}/{judge}.json",
    log:
        "logs/{study}/judge_answers/{dataset}-{model}-{method}-seed{seed}-{generation}-{bench}-{judge}.log",
    benchmark:
        "<study>/benchmarks/judge_answers/{dataset}-{model}-{method}-seed{seed}-{generation}-{bench}-{judge}.jsonl"
    wildcard_constraints:
        bench=PLAN.pairwise,
    conda:
        "../../envs/judge.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        judge_slots=1,
    params:
        judge=PLAN.judge_params,
        ledger=PLAN.ledger,
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
    wildcard_constraints:
        bench=PLAN.pairwise,
    conda:
        "../../envs/judge.yaml"
    resources:
        mem_mb=1000,
    params:
        benchmark=PLAN.benchmark_params,
        code=PLAN.code("score_judgments"),
    message:
        "Scoring the judgments of {wildcards.method}, seed {wildcards.seed}"
    script:
        "../scripts/score_judgments.py"


rule judge_arena_hard:
    input:
        answers=PLAN.judged_answers("arena_hard"),
        baseline=PLAN.baseline("arena_hard"),
        weights=PLAN.judge_weights,
    output:
        judgments="<run>/judgments/{generation}/arena_hard/{judge}.jsonl",
        official="<run>/official/{generation}/arena_hard/{judge}.jsonl",
    log:
        "logs/{study}/judge_arena_hard/{dataset}-{model}-{method}-seed{seed}-{generation}-{judge}.log",
    benchmark:
        "<study>/benchmarks/judge_arena_hard/{dataset}-{model}-{method}-seed{seed}-{generation}-{judge}.jsonl"
    conda:
        "../../envs/judge.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        judge_slots=1,
    params:
        judge=PLAN.judge_params,
        ledger=PLAN.ledger,
        version=PLAN.arena_version,
        code=PLAN.code("judge_arena_hard"),
    message:
        "Judging Arena-Hard of {wildcards.method}, seed {wildcards.seed}, with {wildcards.judge}"
    script:
        "../scripts/judge_arena_hard.py"


rule score_arena_hard:
    input:
        official="<run>/official/{generation}/arena_hard/{judge}.jsonl",
    output:
        scores="<run>/scores/{generation}/arena_hard/{judge}.json",
    log:
        "logs/{study}/score_arena_hard/{dataset}-{model}-{method}-seed{seed}-{generation}-{judge}.log",
    benchmark:
        "<study>/benchmarks/score_arena_hard/{dataset}-{model}-{method}-seed{seed}-{generation}-{judge}.jsonl"
    conda:
        "../../envs/judge.yaml"
    resources:
        mem_mb=1000,
    params:
        version=PLAN.arena_version,
        code=PLAN.code("score_arena_hard"),
    message:
        "Scoring Arena-Hard of {wildcards.method}, seed {wildcards.seed}"
    script:
        "../scripts/score_arena_hard.py"


rule judge_mt_bench:
    input:
        answers=PLAN.judged_answers("mt_bench"),
        questions="<study>/questions/mt_bench.jsonl",
        weights=PLAN.judge_weights,
    output:
        judgments="<run>/judgments/{generation}/mt_bench/{judge}.jsonl",
        official="<run>/official/{generation}/mt_bench/{judge}.jsonl",
    log:
        "logs/{study}/judge_mt_bench/{dataset}-{model}-{method}-seed{seed}-{generation}-{judge}.log",
    benchmark:
        "<study>/benchmarks/judge_mt_bench/{dataset}-{model}-{method}-seed{seed}-{generation}-{judge}.jsonl"
    conda:
        "../../envs/judge.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        judge_slots=1,
    params:
        judge=PLAN.judge_params,
        ledger=PLAN.ledger,
        code=PLAN.code("judge_mt_bench"),
    message:
        "Judging MT-Bench of {wildcards.method}, seed {wildcards.seed}, with {wildcards.judge}"
    script:
        "../scripts/judge_mt_bench.py"


rule score_mt_bench:
    input:
        official="<run>/official/{generation}/mt_bench/{judge}.jsonl",
    output:
        scores="<run>/scores/{generation}/mt_bench/{judge}.json",
    log:
        "logs/{study}/score_mt_bench/{dataset}-{model}-{method}-seed{seed}-{generation}-{judge}.log",
    benchmark:
        "<study>/benchmarks/score_mt_bench/{dataset}-{model}-{method}-seed{seed}-{generation}-{judge}.jsonl"
    conda:
        "../../envs/judge.yaml"
    resources:
        mem_mb=1000,
    params:
        code=PLAN.code("score_mt_bench"),
    message:
        "Scoring MT-Bench of {wildcards.method}, seed {wildcards.seed}"
    script:
        "../scripts/score_mt_bench.py"
