"""Quality gates: features, metrics, a structure segmenter, calibration, and the gates that judge cubes and sets."""
