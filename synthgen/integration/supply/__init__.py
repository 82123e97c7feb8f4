"""Where the samples of a batch come from."""
