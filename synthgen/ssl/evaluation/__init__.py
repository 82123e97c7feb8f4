"""What features predict: probes and monitors."""
