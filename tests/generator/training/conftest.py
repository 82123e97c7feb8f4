"""One small autoencoder for all tests of trainings."""

from pathlib import Path

import pytest

from synthgen.generator.training.autoencoder import train_autoencoder
from tests.generator.training.small_trainings import autoencoder_training


@pytest.fixture(scope="session")
def coder(cohort_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_autoencoder(autoencoder_training(cohort_path, tmp_path_factory.mktemp("coder") / "run"))
