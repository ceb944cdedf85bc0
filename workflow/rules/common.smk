# What all rules share: wildcard constraints and the list of a study's results.


wildcard_constraints:
    **PLAN.constraints(),


def study_results(study):
    """Tables, figures and metrics of a study: what its target asks for."""
    figures = ["learning_curves", "reward_kl", *(["margins"] if PLAN.has_margins(study) else [])]
    online = ["results/{study}/online.md"] if PLAN.has_arms(study) else []
    return expand(
        ["results/{study}/metrics.csv", "results/{study}/table.md", "results/{study}/figures/{figure}.png", *online],
        study=study,
        figure=figures,
    )
