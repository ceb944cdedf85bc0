"""One file per preference-optimisation method, discovered by its presence; importable without torch."""
