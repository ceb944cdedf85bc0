"""generate_answers: a run's policy answers the held-out prompts of a benchmark."""

from marginbench.job import job

name = f"generate_answers {snakemake.wildcards.method} seed{snakemake.wildcards.seed}"
with job(name, snakemake.log[0], snakemake.threads) as progress:
    from marginbench.files import write_jsonl
    from marginbench.generation.answers import answer_questions
    from marginbench.records import TEXTS, read_table
    from marginbench.study import Decoding

    texts = read_table(snakemake.input.texts, TEXTS)
    answers = answer_questions(
        snakemake.input.policy,
        texts[texts["role"] == "eval"],
        snakemake.params.format,
        Decoding.model_validate(snakemake.params.decoding),
        generation_id=snakemake.wildcards.generation,
        bench=snakemake.wildcards.bench,
        seed=int(snakemake.wildcards.seed),
        n_prompts=snakemake.params.prompts,
        progress=progress,
    )
    write_jsonl(snakemake.output.answers, answers)
