"""What features tell: probes and monitors."""
