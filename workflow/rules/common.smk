# What all rules share: wildcard constraints and the list of a study's results.


wildcard_constraints:
    **PLAN.constraints(),


def study_results(study):
    """Tables, figures and metrics of a study: what its target asks for."""
    return expand(
        [
            "results/{study}/metrics.csv",
            "results/{study}/table.md",
            "results/{study}/figures/learning_curves.png",
            "results/{study}/figures/reward_kl.png",
        ],
        study=study,
    )
