"""Shards in a bucket of an S3 server on this machine: `pip install 'synthgen[stores]'`, else the tests are skipped."""

from __future__ import annotations

import fsspec
import pytest
import torch

from synthgen.errors import InputError, StorageError
from synthgen.generator.generator import Generator
from synthgen.runs.keys import key
from synthgen.shards.manifest import write_manifest
from synthgen.shards.reader import ShardFolder
from synthgen.shards.storage import Remote, place_of
from synthgen.shards.writer import write_shards

s3fs = pytest.importorskip("s3fs", reason="needs s3fs")
server = pytest.importorskip("moto.server", reason="needs moto[s3,server]")

SETTINGS = {"seed": 3, "steps": 1, "sampler": "euler", "shard_size": 6}


@pytest.fixture(scope="module")
def endpoint():
    running = server.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(endpoint, request, monkeypatch):
    """An empty bucket, reached as a user reaches one: by the environment that Amazon's own tools read."""
    given = {"ENDPOINT_URL": endpoint, "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": "us-east-1"}
    for name, value in given.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"b{key(request.node.name)}"
    fsspec.filesystem("s3").mkdir(name)
    return f"s3://{name}"


def objects(url: str) -> dict[str, bytes]:
    system = fsspec.filesystem("s3")
    system.invalidate_cache()
    return {path.rsplit("/", 1)[-1]: system.cat_file(path) for path in system.find(url)}


@pytest.mark.parametrize("kind", ["tokens", "cubes"])
def test_a_bucket_holds_the_bytes_of_a_folder(generator: Generator, tmp_path, bucket, kind):
    write_shards(generator, tmp_path / "s", count=15, kind=kind, **SETTINGS)
    write_shards(generator, f"{bucket}/deep/s", count=15, kind=kind, **SETTINGS)
    assert objects(f"{bucket}/deep/s") == {p.name: p.read_bytes() for p in (tmp_path / "s").iterdir()}
    remote, local = (
        [torch.cat(column) for column in zip(*ShardFolder.open(where, False).cubes(generator), strict=True)]
        for where in (f"{bucket}/deep/s", tmp_path / "s")
    )
    assert all(torch.equal(a, b) for a, b in zip(remote, local, strict=True))


def test_a_writer_killed_at_any_object_is_gone_on_from(generator: Generator, bucket, monkeypatch):
    class Killed(BaseException):
        pass

    write_shards(generator, f"{bucket}/whole", count=12, **SETTINGS)
    whole, put = objects(f"{bucket}/whole"), Remote.write
    for last in range(4):
        done = []

        def dying(self, name, fill, done=done, last=last):
            if len(done) == last:
                raise Killed
            done.append(name)
            put(self, name, fill)

        with monkeypatch.context() as patch:
            patch.setattr(Remote, "write", dying)
            with pytest.raises(Killed):
                write_shards(generator, f"{bucket}/{last}", count=12, **SETTINGS)
        write_shards(generator, f"{bucket}/{last}", count=12, **SETTINGS)
        assert objects(f"{bucket}/{last}") == whole


def test_more_shards_and_a_verdict_later(generator: Generator, bucket):
    where = f"{bucket}/s"
    write_shards(generator, where, count=7, **SETTINGS)
    manifest = write_shards(generator, where, count=15, **SETTINGS)
    assert manifest.proposed == 15
    write_manifest(place_of(where), manifest)
    folder = ShardFolder.open(where, accepted_only=False)
    folder.verify()
    assert sorted(torch.cat([block.id for block in folder.tokens()]).tolist()) == list(range(15))


def test_a_bucket_that_one_may_not_ask_for_is_written_to(generator: Generator, bucket, monkeypatch):
    """As with rights to a prefix alone: not knowing of the bucket is no reason to refuse it."""
    asked = s3fs.S3FileSystem.exists
    mute = lambda self, path, **more: "/" in path.removeprefix("s3://") and asked(self, path, **more)
    with monkeypatch.context() as patch:
        patch.setattr(s3fs.S3FileSystem, "exists", mute)
        write_shards(generator, f"{bucket}/s", count=6, **SETTINGS)
    assert "manifest.json" in objects(f"{bucket}/s")


def test_faults_of_a_bucket_are_reported_in_one_line(generator: Generator, bucket, endpoint, monkeypatch):
    with pytest.raises(InputError, match=f"{bucket}/s: no such folder"):
        ShardFolder.open(f"{bucket}/s")
    with pytest.raises(StorageError, match="s3://no-such-bucket/s: no such bucket") as caught:
        write_shards(generator, "s3://no-such-bucket/s", count=6, **SETTINGS)
    assert not fsspec.filesystem("s3").exists("no-such-bucket"), "made for a misspelt name"
    assert "\n" not in str(caught.value)
    write_shards(generator, f"{bucket}/s", count=12, **SETTINGS)
    system = fsspec.filesystem("s3")
    system.pipe_file(f"{bucket}/s/shard-00001.tar", b"torn")
    with pytest.raises(InputError, match=r"shard-00001\.tar: the shard was altered or cut short"):
        ShardFolder.open(f"{bucket}/s", False).verify()
    system.rm_file(f"{bucket}/s/shard-00001.tar")
    with pytest.raises(InputError, match=r"shard-00001\.tar: a shard of the manifest is missing"):
        ShardFolder.open(f"{bucket}/s", False).verify()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens there
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(InputError, match=f"{bucket}/s: the store could not be read") as caught:
        ShardFolder.open(f"{bucket}/s")
    assert "\n" not in str(caught.value)
