"""Scorers of preference margins: a reward model, the ratings that come with a dataset."""
