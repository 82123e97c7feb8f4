"""What every long command shares: run folder, checkpoints, random streams, signals, progress, NaN stop."""
