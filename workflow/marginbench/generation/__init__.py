"""Sampling answers from a model, and what can be measured on an answer without a judge."""
