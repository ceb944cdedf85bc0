"""Intervals: over items of one run, over training seeds, and of paired differences. Pure mathematics, no files."""
