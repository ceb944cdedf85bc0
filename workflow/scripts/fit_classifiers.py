"""fit_classifiers: the ground truth (half A of the labelled reviews) and the independent judge (half B)."""

from marginbench.job import job

with job(f"fit_classifiers {snakemake.wildcards.corpus}", snakemake.log[0], snakemake.threads) as progress:
    from marginbench.data.classifier import fit_halves
    from marginbench.files import write_json
    from marginbench.study import parse_corpus

    ground_truth, judge, report = fit_halves(parse_corpus(snakemake.params.corpus), seed=0, progress=progress)
    ground_truth.save(snakemake.output.ground_truth)
    judge.save(snakemake.output.judge)
    write_json(snakemake.output.report, report)
