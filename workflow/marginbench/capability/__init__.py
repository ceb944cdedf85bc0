"""Capability: lm-eval tasks before and after training, with the per-sample values that paired tests need."""
