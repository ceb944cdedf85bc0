"""tokenise_pairs: token ids of every pair, once for all methods; one template and one BOS from here to judging."""

from marginbench.job import job

with job(f"tokenise_pairs {snakemake.wildcards.dataset}", snakemake.log[0], snakemake.threads):
    from marginbench.files import write_json
    from marginbench.models.loading import load_tokenizer
    from marginbench.records import PAIR_TOKENS, PAIRS, read_table, write_table
    from marginbench.training.tokenise import tokenise_pairs

    tokens, report = tokenise_pairs(
        read_table(snakemake.input.pairs, PAIRS),
        load_tokenizer(snakemake.input.start),
        snakemake.params.format,
        snakemake.params.max_length,
    )
    write_table(tokens, snakemake.output.tokens, PAIR_TOKENS)
    write_json(snakemake.output.report, report)
