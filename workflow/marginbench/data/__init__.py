"""Where texts and preference pairs come from: sources, normalisation, splits, ground truth and labels."""
