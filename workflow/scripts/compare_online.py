"""compare_online: every online run's path, what it spent, and whether arms are equivalent at equal budgets."""

from marginbench.job import job

with job("compare_online", snakemake.log[0], snakemake.threads):
    import pandas as pd
    from marginbench.records import ONLINE_METRICS, read_table, write_table
    from marginbench.reporting.dissociation import plot_dissociation
    from marginbench.reporting.labeller_judge import plot_matrix
    from marginbench.reporting.metrics import write_csv
    from marginbench.reporting.online import compare_online, matrix_online
    from marginbench.reporting.online_table import write_online

    study, output = snakemake.params.study, snakemake.output
    frame = pd.concat([read_table(path, ONLINE_METRICS) for path in snakemake.input.runs], ignore_index=True)
    write_table(frame, output.metrics, ONLINE_METRICS)
    write_csv(frame, output.csv)
    tests = study["equivalence"]
    pairs = [tuple(pair) for pair in tests["pairs"]]
    verdicts = compare_online(frame, pairs, tests["margins"], tests["alpha"])
    matrix = matrix_online(frame, pairs, study["confidence"])
    write_online(
        frame,
        verdicts,
        matrix,
        confidence=study["confidence"],
        md=output.md,
        tex=output.tex,
        csv=output.verdicts,
        matrix_csv=output.matrix,
        arms=study["arms"],
    )
    plot_matrix(matrix, [output.matrix_png, output.matrix_pdf])
    paths = [output.dissociation, output.dissociation_pdf]
    plot_dissociation(frame, paths, tasks=study["tasks"], judges=study["judges"], arms=study["arms"])
