"""generate_answers: a run's policy answers the held-out prompts, or a benchmark's own questions."""

from marginbench.job import job

name = f"generate_answers {snakemake.wildcards.method} seed{snakemake.wildcards.seed}"
with job(name, snakemake.log[0], snakemake.threads) as progress:
    from marginbench.files import read_jsonl, write_jsonl
    from marginbench.generation.answers import answer_questions
    from marginbench.generation.benchmark_answers import answer_benchmark
    from marginbench.generation.policy import Policy
    from marginbench.records import TEXTS, read_table
    from marginbench.study import Decoding

    settings = {
        "format": snakemake.params.format,
        "decoding": Decoding.model_validate(snakemake.params.decoding),
        "generation_id": snakemake.wildcards.generation,
        "bench": snakemake.wildcards.bench,
        "seed": int(snakemake.wildcards.seed),
        "progress": progress,
    }
    if snakemake.input.questions.endswith(".parquet"):
        texts = read_table(snakemake.input.questions, TEXTS)
        answers = answer_questions(snakemake.input.policy, texts, n_prompts=snakemake.params.prompts, **settings)
    else:
        questions = read_jsonl(snakemake.input.questions)
        temperatures = snakemake.params.temperatures
        answers = answer_benchmark(Policy(snakemake.input.policy), questions, temperatures=temperatures, **settings)
    write_jsonl(snakemake.output.answers, answers)
