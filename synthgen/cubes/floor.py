"""The floor of log-reflectance, apart from `reflectance`, which needs torch: an ingest's workers do without torch."""

LOG_FLOOR = 5e-4  # a tenth of the darkest fundus reflectance (0.5 % at 450 nm): keeps log finite at 0
