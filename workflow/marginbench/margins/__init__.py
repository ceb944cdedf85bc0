"""Scorers of preference margins: own and other reward models, ratings, implicit rewards, held-out losses."""
