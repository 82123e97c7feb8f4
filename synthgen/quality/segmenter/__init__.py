"""The network that finds vessels and disc."""
