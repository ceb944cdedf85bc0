"""make_pairs: preference pairs, constructed from candidates and a ground truth or read from the corpus."""

from marginbench.job import job

with job(f"make_pairs {snakemake.wildcards.dataset}", snakemake.log[0], snakemake.threads):
    from marginbench.data.classifier import TextClassifier
    from marginbench.data.pairs import pairs_from_candidates, pairs_from_corpus
    from marginbench.files import write_json
    from marginbench.records import CANDIDATES, PAIRS, TEXTS, read_table, write_table
    from marginbench.study import Dataset, parse_corpus

    dataset = Dataset.model_validate(snakemake.params.dataset)
    options = {"holdout_fraction": snakemake.params.holdout_fraction, "seed": snakemake.params.seed}
    if "candidates" in snakemake.input.keys():  # noqa: SIM118 - Snakemake's named list, not a mapping
        pairs, report = pairs_from_candidates(
            read_table(snakemake.input.texts, TEXTS),
            read_table(snakemake.input.candidates, CANDIDATES),
            TextClassifier.load(snakemake.input.ground_truth),
            dataset,
            **options,
        )
    else:
        pairs, report = pairs_from_corpus(parse_corpus(snakemake.params.corpus), dataset, **options)
    write_table(pairs, snakemake.output.pairs, PAIRS)
    write_json(snakemake.output.report, report)
