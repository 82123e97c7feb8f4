"""Figures and pages from arrays and JSON."""
