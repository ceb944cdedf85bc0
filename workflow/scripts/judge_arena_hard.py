"""judge_arena_hard: two games for every prompt, asked over HTTP; judgments also in Arena-Hard's own format."""

from marginbench.job import job

name = f"judge_arena_hard {snakemake.wildcards.method} seed{snakemake.wildcards.seed}"
with job(name, snakemake.log[0], snakemake.threads) as progress:
    from marginbench.benchmarks.arena_calls import calls, judgments_file
    from marginbench.benchmarks.questions import baseline_rows
    from marginbench.files import read_jsonl, write_jsonl
    from marginbench.judging.asking import ask
    from marginbench.judging.spec import JudgeSpec
    from marginbench.study import START

    judge = JudgeSpec.model_validate(snakemake.params.judge)
    # One answer to a prompt is judged, whatever the generation samples.
    answers = [row for row in read_jsonl(snakemake.input.answers) if row["sample"] == 0]
    baseline, baseline_name, categories = read_jsonl(snakemake.input.baseline), START, {}
    if baseline and "baseline" in baseline[0]:
        categories = {row["question_id"]: row["category"] for row in baseline}
        baseline, baseline_name = baseline_rows(baseline), baseline[0]["baseline_id"]
    else:
        baseline = [row for row in baseline if row["sample"] == 0]
    questions = [{"question_id": row["question_id"], "category": "", "question": row["prompt_text"]} for row in answers]
    asked = calls(questions, baseline, answers, judge.messages)
    judgments = ask(
        judge,
        asked,
        weights=snakemake.input.weights,
        log=f"{snakemake.log[0]}.server",
        progress=progress,
        **snakemake.params.ledger,
    )
    version, method = snakemake.params.version, snakemake.wildcards.method
    write_jsonl(snakemake.output.judgments, judgments)
    write_jsonl(snakemake.output.official, judgments_file(judgments, version, method, baseline_name, categories, asked))
