"""From metrics to tables, figures and the closing screen. Reads result files, trains and judges nothing."""
