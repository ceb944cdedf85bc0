"""Judging: judge entries, prompts, a local judge server, the client that asks a judge, and AlpacaEval's scores."""
