"""judge_answers: every answer against the SFT start's, asked over HTTP; a local judge is started and stopped here."""

from contextlib import nullcontext

from marginbench.job import job

name = f"judge_answers {snakemake.wildcards.method} seed{snakemake.wildcards.seed}"
with job(name, snakemake.log[0], snakemake.threads) as progress:
    from marginbench.benchmarks.alpaca_eval import annotations, pair_items
    from marginbench.files import read_jsonl, write_json, write_jsonl
    from marginbench.judging.client import judge_pairs
    from marginbench.judging.server import local_server
    from marginbench.judging.spec import JudgeSpec
    from marginbench.study import START

    judge = JudgeSpec.model_validate(snakemake.params.judge)
    items = pair_items(read_jsonl(snakemake.input.answers), read_jsonl(snakemake.input.baseline))
    weights = snakemake.input.weights
    if judge.kind == "local_server":
        server = local_server(judge, weights if isinstance(weights, str) else weights[0], f"{snakemake.log[0]}.server")
    else:
        server = nullcontext(None)
    with server as base_url:
        judgments = judge_pairs(judge, base_url, items, progress)
    rows = annotations(judgments, items, baseline_name=START, method_name=snakemake.wildcards.method)
    write_jsonl(snakemake.output.judgments, judgments)
    write_json(snakemake.output.annotations, rows)
