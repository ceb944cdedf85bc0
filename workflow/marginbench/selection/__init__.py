"""One file per acquisition strategy, discovered by its presence: which prompts of a pool are worth a label."""
