"""score_arena_hard: score, official interval, error clustered by prompt; from judgments in the official format."""

from marginbench.job import job

with job(f"score_arena_hard {snakemake.wildcards.method}", snakemake.log[0], snakemake.threads):
    from marginbench.benchmarks.arena_formats import read_games
    from marginbench.benchmarks.arena_hard import score_run
    from marginbench.files import write_json

    games = read_games([snakemake.input.official])
    write_json(snakemake.output.scores, score_run(games, snakemake.params.version))
