"""Online preference optimisation: the round loop of pool, candidates, scores, selection, labels, update, evaluation."""
