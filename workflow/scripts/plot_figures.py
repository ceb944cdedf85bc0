"""plot_figures: learning curves of every method, and reward against KL."""

from marginbench.job import job

with job("plot_figures", snakemake.log[0], snakemake.threads):
    from marginbench.records import METRICS, read_table
    from marginbench.reporting.comparison import compare
    from marginbench.reporting.learning_curves import plot_learning_curves
    from marginbench.reporting.metrics import read_items
    from marginbench.reporting.reward_kl import plot_reward_kl

    study, output = snakemake.params.study, snakemake.output
    metrics = read_table(snakemake.input.metrics, METRICS)
    cells = compare(metrics, study["confidence"], read_items(snakemake.input.per_item), study["methods"])
    logs = {
        (run["dataset"], run["model"], run["method"], run["seed"]): run["train"]
        for run in snakemake.params.runs
        if run["train"]
    }
    settings = {"confidence": study["confidence"], "methods": study["methods"]}
    plot_learning_curves(logs, [output.learning_curves, output.learning_curves_pdf], **settings)
    plot_reward_kl(cells, metrics, [output.reward_kl, output.reward_kl_pdf], **settings)
