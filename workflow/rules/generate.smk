# Generation: a run's policy answers the held-out prompts, and what needs no judge is measured on the answers.
# In: policy/manifest.json, texts.parquet. Out: answers/{generation}/{bench}.jsonl, answer_scores/{generation}/{bench}.parquet.


rule read_questions:
    input:
        files=PLAN.question_files,
    output:
        questions="<study>/questions/{bench}.jsonl",
    log:
        "logs/{study}/read_questions/{bench}.log",
    benchmark:
        "<study>/benchmarks/read_questions/{bench}.jsonl"
    conda:
        "../../envs/judge.yaml"
    resources:
        mem_mb=1000,
    params:
        benchmark=PLAN.benchmark_params,
        code=PLAN.code("read_questions"),
    message:
        "Reading the questions of {wildcards.bench}"
    script:
        "../scripts/read_questions.py"


rule generate_answers:
    input:
        policy="<run>/policy/manifest.json",
        questions=PLAN.questions,
    output:
        answers="<run>/answers/{generation}/{bench}.jsonl",
    log:
        "logs/{study}/generate_answers/{dataset}-{model}-{method}-seed{seed}-{generation}-{bench}.log",
    benchmark:
        "<study>/benchmarks/generate_answers/{dataset}-{model}-{method}-seed{seed}-{generation}-{bench}.jsonl"
    conda:
        "../../envs/generate.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        gpu=1,
    params:
        format=PLAN.format,
        decoding=PLAN.decoding_params,
        prompts=PLAN.n_prompts,
        temperatures=PLAN.temperatures,
        code=PLAN.code("generate_answers"),
    message:
        "Answering {wildcards.bench} with {wildcards.method}, seed {wildcards.seed}"
    script:
        "../scripts/generate_answers.py"


rule score_answers:
    input:
        answers="<run>/answers/{generation}/{bench}.jsonl",
        ground_truth=PLAN.ground_truth,
    output:
        scores="<run>/answer_scores/{generation}/{bench}.parquet",
    log:
        "logs/{study}/score_answers/{dataset}-{model}-{method}-seed{seed}-{generation}-{bench}.log",
    benchmark:
        "<study>/benchmarks/score_answers/{dataset}-{model}-{method}-seed{seed}-{generation}-{bench}.jsonl"
    conda:
        "../../envs/generate.yaml"
    resources:
        mem_mb=1000,
    params:
        code=PLAN.code("score_answers"),
    message:
        "Measuring the answers of {wildcards.method}, seed {wildcards.seed}"
    script:
        "../scripts/score_answers.py"
