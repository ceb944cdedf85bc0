"""Tokenised pairs, reference log-probabilities, the preference trainer, supervised fine-tuning and the reward model."""
