"""Verdicts on cubes, shards and sets."""
