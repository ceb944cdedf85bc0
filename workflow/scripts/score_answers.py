"""score_answers: what needs no judge: ground-truth reward, KL, length, repetition."""

from marginbench.job import job

with job(f"score_answers {snakemake.wildcards.method}", snakemake.log[0], snakemake.threads):
    from marginbench.data.classifier import TextClassifier
    from marginbench.files import read_jsonl
    from marginbench.generation.scores import measure_answers
    from marginbench.records import ANSWER_SCORES, write_table

    paths = snakemake.input.ground_truth
    classifier = TextClassifier.load(paths[0] if isinstance(paths, list) else paths) if paths else None
    scores = measure_answers(read_jsonl(snakemake.input.answers), classifier)
    write_table(scores, snakemake.output.scores, ANSWER_SCORES)
