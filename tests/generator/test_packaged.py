"""What comes with the package: small enough to come with it, and a recipe that makes it."""

from synthgen.generator.generator import PACKAGED, Generator


def test_the_packaged_generator_takes_at_most_12_mb():
    folder = PACKAGED / "phantom64"
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 12_000_000
    generator = Generator.load("phantom64", "cpu")
    assert (generator.bands, generator.size) == (16, 64)
