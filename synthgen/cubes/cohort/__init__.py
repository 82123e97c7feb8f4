"""The cohort file: cubes, patients, splits, covariates."""
