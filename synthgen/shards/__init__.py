"""Webdataset shards of tokens or cubes: written whole, checksummed, resumable, and readable without this package."""
