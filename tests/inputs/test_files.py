"""Files of every age and form are read, whole and in blocks; of one that cannot be read, the cause is told."""

import errno
import gzip
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from refused import refused as words_of
from scipy import sparse

from scanvi_tutorial.data.selection import select_genes
from scanvi_tutorial.data.streaming import open_cells
from scanvi_tutorial.inputs import read_h5ad

COUNTS = np.random.default_rng(0).poisson(0.6, (30, 12)) + np.eye(30, 12, dtype=int)[:, ::-1]
COUNTS[:, 0] += 1  # no cell is empty
CELLS = [f"c{c}" for c in range(30)]
GENES = [f"g{g}" for g in range(12)]
TYPES = ["B", "NK", "T"]
CODES = np.arange(30) % 3
READERS = {"whole": read_h5ad, "in blocks": lambda path: open_cells(path, 5)}


def cells(matrix=COUNTS, **parts):
    obs = pd.DataFrame({"type": pd.Categorical.from_codes(CODES, TYPES)}, index=CELLS)
    return AnnData(matrix, obs=obs, var=pd.DataFrame(index=GENES), **parts)


def refused(read, path, **options):
    """Return the text with which `path` is refused, with PATH in its place."""
    return words_of(read, path, **options).replace(str(path), "PATH")


def written(path, matrix=COUNTS, **options):
    cells(matrix).write_h5ad(path, **options)


def put_csr(file, place, attributes):
    matrix = sparse.csr_matrix(COUNTS.astype(np.float32))
    group = file.create_group(place)
    for name in ("data", "indices", "indptr"):
        group[name] = getattr(matrix, name)
    group.attrs.update(attributes)


def written_by_0_6(path):
    """Write tables as arrays of records, and names of categories apart from them."""
    obs = np.zeros(30, dtype=[("index", "S4"), ("type", "i1"), ("score", "f8")])
    obs["index"], obs["type"], obs["score"] = np.array(CELLS, dtype="S4"), CODES, np.arange(30)
    var = np.zeros(12, dtype=[("index", "S4")])
    var["index"] = np.array(GENES, dtype="S4")
    with h5py.File(path, "w") as file:
        file["obs"], file["var"] = obs, var
        file["uns/type_categories"] = np.array(TYPES, dtype="S2")
        put_csr(file, "X", {"h5sparse_format": "csr", "h5sparse_shape": COUNTS.shape})


def written_by_0_7(path):
    """Write tables column by column, and references to names of categories."""
    text = h5py.string_dtype()
    with h5py.File(path, "w") as file:
        for table, names in (("obs", CELLS), ("var", GENES)):
            group = file.create_group(table)
            group["_index"] = np.array(names, dtype=text)
            columns = np.array(["type"] if table == "obs" else [], dtype=text)
            group.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.1.0", "_index": "_index"})
            group.attrs.create("column-order", columns, dtype=text)
        file["obs/__categories/type"] = np.array(TYPES, dtype=text)
        file["obs/type"] = CODES.astype("i1")
        file["obs/type"].attrs["categories"] = file["obs/__categories/type"].ref
        file.create_group("uns")
        shape = {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": COUNTS.shape}
        put_csr(file, "X", shape)


WRITERS = {
    "0.6": written_by_0_6,
    "0.7": written_by_0_7,
    "gzip": lambda path: written(path, sparse.csr_matrix(COUNTS), compression="gzip"),
    "lzf": lambda path: written(path, compression="lzf"),
    "dense": written,
    "float16": lambda path: written(path, COUNTS.astype(np.float16)),
    "big-endian": lambda path: written(path, COUNTS.astype(">f4")),
    "CSC": lambda path: written(path, sparse.csc_matrix(COUNTS, dtype=np.float32)),
    "integers": lambda path: written(path, sparse.csr_matrix(COUNTS, dtype=np.int64)),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_what_anndata_reads_is_read_though_warnings_are_errors(tmp_path, write):
    write(tmp_path / "a.h5ad")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole, part = read_h5ad(tmp_path / "a.h5ad"), open_cells(tmp_path / "a.h5ad", 5)
    np.testing.assert_array_equal(sparse.csr_matrix(whole.X.astype(np.float32)).toarray(), COUNTS)
    assert list(whole.obs["type"]) == [TYPES[code] for code in CODES]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = select_genes(anndata.read_h5ad(tmp_path / "a.h5ad"), 5)
    np.testing.assert_array_equal(part.X.toarray(), sparse.csr_matrix(wanted.X.astype(np.float32)).toarray())
    pd.testing.assert_frame_equal(part.obs, wanted.obs)
    pd.testing.assert_frame_equal(part.var, wanted.var)
    assert part.uns.keys() == wanted.uns.keys()


def test_a_file_without_x_is_read_and_the_layers_are_named_where_x_is_asked_for(tmp_path):
    cells(None, layers={"umi": sparse.csr_matrix(COUNTS)}).write_h5ad(tmp_path / "a.h5ad")
    assert read_h5ad(tmp_path / "a.h5ad").X is None
    assert "layer='umi'" in refused(open_cells, tmp_path / "a.h5ad")
    assert open_cells(tmp_path / "a.h5ad", 5, layer="umi").n_vars == 5
    assert "layer='umi'" in refused(open_cells, tmp_path / "a.h5ad", layer="counts")


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_path_may_begin_at_home(tmp_path, monkeypatch, read):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    written(tmp_path / "a.h5ad")
    assert read("~/a.h5ad").n_obs == 30
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "~nobody-of-that-name.h5ad")
    assert read("~nobody-of-that-name.h5ad").n_obs == 30


@pytest.fixture
def stranger():
    """Yield a folder of nobody's; the test is not the superuser, who may read everything."""
    place = Path(tempfile.mkdtemp())  # nobody could not enter pytest's own folders
    written(place / "a.h5ad")
    place.chmod(0o755)
    was = os.geteuid() if hasattr(os, "geteuid") else None
    if was is None:
        pytest.skip("no such permissions on this system")
    if was == 0:
        os.seteuid(65534)
    yield place
    os.seteuid(was)
    shutil.rmtree(place)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("closed", ["file", "folder"])
def test_a_file_that_one_may_not_read_is_not_called_damaged(stranger, read, closed):
    path, me = stranger / "a.h5ad", os.geteuid()
    os.seteuid(os.getuid())
    (path if closed == "file" else stranger).chmod(0)
    os.seteuid(me)
    text = refused(read, path)
    os.seteuid(os.getuid())
    stranger.chmod(0o755)
    assert "permission" in text
    assert "PATH may not be read by you" in text


WRITING = "import h5py, sys; file = h5py.File(sys.argv[1], 'r+'); print('open', flush=True); sys.stdin.read()"


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_file_that_is_open_for_writing_elsewhere_is_called_locked(tmp_path, monkeypatch, read):
    monkeypatch.delenv("HDF5_USE_FILE_LOCKING", raising=False)
    written(tmp_path / "a.h5ad")
    command = [sys.executable, "-c", WRITING, str(tmp_path / "a.h5ad")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"open\n"
        text = refused(read, tmp_path / "a.h5ad")
        other.stdin.close()
    assert "PATH is locked" in text
    assert "open for writing" in text
    assert "HDF5_USE_FILE_LOCKING=FALSE" in text
    assert "etch" not in text
    assert read(tmp_path / "a.h5ad").n_obs == 30


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EAGAIN, None])
def test_a_disk_without_locks_is_told_from_a_file_in_need_of_fetching(tmp_path, monkeypatch, number):
    written(tmp_path / "a.h5ad")

    def fail(*_, **__):
        said = "Unable to synchronously open file"
        raise OSError(number, said) if number else OSError(f"{said} (unable to lock file)")

    monkeypatch.setattr(h5py, "File", fail)
    monkeypatch.setattr(h5py, "is_hdf5", lambda path: False)  # older HDF5 cannot look into it either
    for read in READERS.values():
        text = refused(read, tmp_path / "a.h5ad")
        assert "no locks" in text
        assert "etch" not in text


def by_a_newer_anndata(path):
    written(path)
    with h5py.File(path, "r+") as file:
        file["obs/type"].attrs["encoding-type"] = "categorical-of-2031"


def by_another_program(path):
    with h5py.File(path, "w") as file:
        file["counts"] = np.ones(3)


def by_an_unknown_filter(path):
    written(path, COUNTS.astype(np.float64))
    with h5py.File(path, "r+") as file:
        del file["X"]
        how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        how.set_chunk(COUNTS.shape)
        how.set_filter(32001, h5py.h5z.FLAG_OPTIONAL)  # Blosc, which is not part of HDF5
        space = h5py.h5s.create_simple(COUNTS.shape)
        h5py.h5d.create(file.id, b"X", h5py.h5t.NATIVE_DOUBLE, space, how).write_direct_chunk((0, 0), b"abc", 0)
        file["X"].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})


UNREADABLE = {
    by_a_newer_anndata: f"anndata {version('anndata')} cannot read PATH",
    by_another_program: f"anndata {version('anndata')} cannot read PATH",
    by_an_unknown_filter: "hdf5plugin",
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize(("write", "words"), UNREADABLE.items())
def test_a_whole_file_that_anndata_cannot_read_is_not_called_damaged(tmp_path, read, write, words):
    write(tmp_path / "a.h5ad")
    text = refused(read, tmp_path / "a.h5ad")
    assert words in text
    assert "damaged" not in text
    assert "etch" not in text


def test_what_anndata_cannot_read_is_named(tmp_path):
    by_a_newer_anndata(tmp_path / "a.h5ad")
    for read in READERS.values():
        text = refused(read, tmp_path / "a.h5ad")
        assert "categorical-of-2031" in text
        assert "in type" in text


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-3000])


def overwritten(path):
    with h5py.File(path) as file:
        start = file["X/data"].id.get_chunk_info(0).byte_offset
    whole = path.read_bytes()
    path.write_bytes(whole[:start] + b"?" * 20 + whole[start + 20 :])


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("damage", [cut_short, overwritten])
def test_a_file_that_is_damaged_is_called_so(tmp_path, read, damage):
    written(tmp_path / "a.h5ad", sparse.csr_matrix(COUNTS), compression="gzip")
    damage(tmp_path / "a.h5ad")
    assert "PATH is damaged" in refused(read, tmp_path / "a.h5ad")


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("content", ["<html>404</html>", "version https://git-lfs.github.com/spec/v1\n", ""])
def test_a_file_without_hdf5_inside_is_to_be_fetched(tmp_path, read, content):
    (tmp_path / "a.h5ad").write_text(content)
    text = refused(read, tmp_path / "a.h5ad")
    assert f"not HDF5 inside ({len(content)} bytes)" in text
    assert "Fetch it again" in text


def test_a_file_larger_than_memory_is_to_be_read_in_blocks(tmp_path, monkeypatch):
    written(tmp_path / "a.h5ad")

    def fail(path):
        raise MemoryError("Unable to allocate 2 TiB")

    monkeypatch.setattr(anndata, "read_h5ad", fail)
    assert "st.open_cells" in refused(read_h5ad, tmp_path / "a.h5ad")


def test_a_file_under_another_name_is_refused_with_what_reads_it(tmp_path):
    cells = AnnData(np.ones((2, 2), dtype=np.float32))
    cells.write_h5ad(tmp_path / "a.h5")
    assert "this is one, so call it .h5ad" in refused(read_h5ad, tmp_path / "a.h5")
    (tmp_path / "b.h5ad").write_bytes(gzip.compress((tmp_path / "a.h5").read_bytes()))
    assert "gzip or zip" in refused(read_h5ad, tmp_path / "b.h5ad")
    (tmp_path / "b.h5ad").rename(tmp_path / "b.h5ad.gz")
    assert "unpack it with gunzip." in refused(read_h5ad, tmp_path / "b.h5ad.gz")
    with h5py.File(tmp_path / "c.h5ad", "w") as file:
        file.create_group("matrix")
    assert "read_10x_h5" in refused(read_h5ad, tmp_path / "c.h5ad")
    assert "Download it first" in refused(read_h5ad, "https://example.org/cells.h5ad")
    assert "is of type int" in refused(read_h5ad, 7)
