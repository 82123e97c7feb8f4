"""What several rooms compute alike, each once; it stands on contracts, errors, config and runs alone."""
