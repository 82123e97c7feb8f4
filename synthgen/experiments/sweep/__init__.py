"""Many generators, judged and timed."""
