"""read_corpus: texts of a corpus with the roles they play (SFT, prompts, evaluation, perplexity)."""

from marginbench.job import job

with job(f"read_corpus {snakemake.wildcards.corpus}", snakemake.log[0], snakemake.threads):
    from marginbench.data.corpora import read_corpus
    from marginbench.files import write_json
    from marginbench.records import TEXTS, write_table
    from marginbench.study import parse_corpus

    texts, report = read_corpus(parse_corpus(snakemake.params.corpus), seed=0)
    write_table(texts, snakemake.output.texts, TEXTS)
    write_json(snakemake.output.report, report)
