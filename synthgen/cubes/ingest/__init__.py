"""From camera files to a cohort file."""
