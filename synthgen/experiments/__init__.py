"""Whole experiments: demo, study, sweep, probe."""
