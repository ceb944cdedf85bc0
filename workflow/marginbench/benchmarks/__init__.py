"""Benchmarks: what is asked, the calls to a judge that it makes, official file formats and scores."""
