"""The `synthgen` command."""
