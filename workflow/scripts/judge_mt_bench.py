"""judge_mt_bench: each turn of every answer graded by itself, asked over HTTP; judgments also in FastChat's format."""

from marginbench.job import job

name = f"judge_mt_bench {snakemake.wildcards.method} seed{snakemake.wildcards.seed}"
with job(name, snakemake.log[0], snakemake.threads) as progress:
    from marginbench.benchmarks.mt_bench import calls, part
    from marginbench.benchmarks.mt_bench_files import answers_of, judgment_records
    from marginbench.files import read_jsonl, write_jsonl
    from marginbench.judging.asking import ask
    from marginbench.judging.spec import JudgeSpec

    judge = JudgeSpec.model_validate(snakemake.params.judge)
    questions = read_jsonl(snakemake.input.questions)
    references = {row["question_id"]: row["references"] for row in questions if row["references"]}
    asked = calls(questions, answers_of(read_jsonl(snakemake.input.answers)), judge.messages, references)
    judgments = ask(
        judge,
        asked,
        weights=snakemake.input.weights,
        log=f"{snakemake.log[0]}.server",
        progress=progress,
        **snakemake.params.ledger,
    )
    by_id = {row["question_id"]: row for row in questions}
    parts = [part(by_id[call["question_id"]], call["turn"]) for call in asked]
    write_jsonl(snakemake.output.judgments, judgments)
    write_jsonl(snakemake.output.official, judgment_records(asked, judgments, parts, snakemake.wildcards.method))
