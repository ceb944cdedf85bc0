"""judge_answers: every answer beside the baseline's, asked over HTTP; a local judge is started and stopped here."""

from marginbench.job import job

name = f"judge_answers {snakemake.wildcards.method} seed{snakemake.wildcards.seed}"
with job(name, snakemake.log[0], snakemake.threads) as progress:
    from marginbench.benchmarks.alpaca_eval import annotations, pair_items
    from marginbench.benchmarks.questions import baseline_rows
    from marginbench.files import read_jsonl, write_json, write_jsonl
    from marginbench.judging.asking import ask
    from marginbench.judging.client import pair_calls
    from marginbench.judging.spec import JudgeSpec
    from marginbench.study import START

    judge = JudgeSpec.model_validate(snakemake.params.judge)
    baseline, baseline_name = read_jsonl(snakemake.input.baseline), START
    if baseline and "baseline" in baseline[0]:
        baseline, baseline_name = baseline_rows(baseline), baseline[0]["baseline_id"]
    items = pair_items(read_jsonl(snakemake.input.answers), baseline)
    judgments = ask(
        judge,
        pair_calls(judge, items),
        weights=snakemake.input.weights,
        log=f"{snakemake.log[0]}.server",
        progress=progress,
        **snakemake.params.ledger,
    )
    rows = annotations(
        judgments,
        items,
        baseline_name=baseline_name,
        method_name=snakemake.wildcards.method,
        dataset=snakemake.wildcards.bench,
    )
    write_jsonl(snakemake.output.judgments, judgments)
    write_json(snakemake.output.annotations, rows)
