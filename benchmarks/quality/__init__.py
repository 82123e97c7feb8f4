"""How good: synthetic cubes, gates, phantom and metrics, beside real cubes and beside the field's tools."""
