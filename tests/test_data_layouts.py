"""ChestX-ray14 in every layout in which people have it, made of real radiographs; its download."""

import errno
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data import DataError, chestxray14, containers, labels, public_lists
from data.cache import Cache
from data.images import read_gray
from data.prepare import prepare
from downloads import DownloadError
from safefiles import PART, UserError
from tests.file_server import file_server  # noqa: F401

LABELS, KAGGLE = "Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv"
LISTS = ("train_val_list.txt", "test_list.txt")


@pytest.fixture(scope="module")
def source(shared_data, tmp_path_factory) -> Path:
    """Return NIH's layout with 300 real radiographs of whole patients from both lists."""
    whole = shared_data / "chestxray14-patients-1-3922-64px"
    folder = tmp_path_factory.mktemp("nih")
    table = pd.read_csv(whole / LABELS, dtype=str)
    testing = {*(whole / LISTS[1]).read_text().split()}
    in_test = table["Image Index"].isin(testing)
    table = pd.concat([table[~in_test].head(200), table[in_test].head(100)])
    table.to_csv(folder / LABELS, index=False)
    names = table["Image Index"].tolist()
    (folder / LISTS[0]).write_text("\n".join(name for name in names if name not in testing))
    (folder / LISTS[1]).write_text("\n".join(name for name in names if name in testing))
    (folder / "images").mkdir()
    for name in names:
        shutil.copy(whole / "images" / name, folder / "images")
    return folder


def names_of(source: Path) -> list[str]:
    return sorted(path.name for path in (source / "images").iterdir())


def copy(source: Path, folder: Path, **renamed: str) -> None:
    """Copy the label file and the lists, under other names where those are given."""
    for name in (LABELS, *LISTS):
        target = renamed.get(name.partition(".")[0], name)
        if target:
            shutil.copy(source / name, folder / target)


def write_zips(source: Path, folder: Path, prefix: str = "images/") -> None:
    names = names_of(source)
    for number, part in enumerate((names[:150], names[150:]), start=1):
        with zipfile.ZipFile(folder / f"images_{number:03d}.zip", "w") as archive:
            for name in part:
                archive.write(source / "images" / name, prefix + name)


def lay_out(kind: str, source: Path, folder: Path) -> None:
    """Write the source's images and label files in another layout."""
    without_lists = {"train_val_list": "", "test_list": ""}
    if kind == "Kaggle, 224 px":
        (folder / "images-224").mkdir()
        shutil.copytree(source / "images", folder / "images-224" / "images-224")
        lists = {name.partition(".")[0]: name.replace(".", "_NIH.") for name in LISTS}
        copy(source, folder, Data_Entry_2017_v2020=KAGGLE, **lists)
    elif kind == "Kaggle, sample":
        shutil.copytree(source / "images", folder / "sample" / "images")
        copy(source, folder, Data_Entry_2017_v2020="sample_labels.csv", **without_lists)
    elif kind == "Kaggle, whole":
        names = names_of(source)
        for number, part in enumerate((names[:150], names[150:]), start=1):
            images = folder / f"images_{number:03d}" / "images"
            images.mkdir(parents=True)
            for name in part:
                shutil.copy(source / "images" / name, images)
        copy(source, folder)
    elif kind == "ZIP archives":
        write_zips(source, folder)
        copy(source, folder)
    elif kind == "ZIP archives of Hugging Face":
        (folder / "images").mkdir()
        write_zips(source, folder / "images", prefix="images_001/images/")
        copy(source, folder)
    elif kind == "TorchXRayVision":
        shutil.copytree(source / "images", folder / "images-224")
        copy(source, folder, **without_lists)
    elif kind == "images alone":
        shutil.copytree(source / "images", folder / "images")
    elif kind == "Parquet":
        write_parquet(source, folder)
        copy(source, folder)


def write_parquet(source: Path, folder: Path, named: bool = True) -> None:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow reads Parquet files; not installed")
    import pyarrow.parquet

    names = names_of(source)
    images = [
        {"bytes": (source / "images" / name).read_bytes(), "path": name if named else None}
        for name in names
    ]
    (folder / "data").mkdir()
    table = arrow.table({"image": images, "labels": [[0]] * len(names)})
    pyarrow.parquet.write_table(
        table, folder / "data" / "train-00000-of-00001.parquet", row_group_size=70
    )


KINDS = (
    *("Kaggle, 224 px", "Kaggle, sample", "Kaggle, whole", "ZIP archives"),
    *("ZIP archives of Hugging Face", "TorchXRayVision", "images alone", "Parquet"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_every_layout_reads_as_nihs_own(kind, source, tmp_path, capsys):
    lay_out(kind, source, tmp_path)
    expected, frame = chestxray14.read(source), chestxray14.read(tmp_path)
    same = ["patient_id", "split"]
    if kind != "images alone":
        same += ["sex", "age", "view", *labels.CHESTXRAY14, labels.NO_FINDING]
    pd.testing.assert_frame_equal(frame[same], expected[same])
    assert frame["image_path"].str.rpartition("/")[2].tolist() == names_of(source)
    printed = capsys.readouterr().err
    assert ("has no lists: using the official split" in printed) == (
        kind in ("Kaggle, sample", "TorchXRayVision")
    )
    assert ("using the labels of 2017" in printed) == (kind == "images alone")
    ours = Cache(prepare(tmp_path, frame["image_path"], tmp_path / "c", 64, progress=False))
    nihs = Cache(prepare(source, expected["image_path"], tmp_path / "n", 64, progress=False))
    every = np.arange(len(frame))
    np.testing.assert_array_equal(ours.read(every), nihs.read(every))


def test_the_folder_above_hugging_faces_is_named(source, tmp_path):
    (tmp_path / "data").mkdir()
    lay_out("ZIP archives of Hugging Face", source, tmp_path / "data")
    with pytest.raises(DataError, match="pass that folder"):
        chestxray14.read(tmp_path)


def test_images_alone_have_the_labels_of_2017(source, tmp_path):
    lay_out("images alone", source, tmp_path)
    frame = chestxray14.read(tmp_path)
    listed = public_lists.images().set_index("image").loc[names_of(source)]
    known = frame[list(labels.CHESTXRAY14)].to_numpy()
    np.testing.assert_array_equal(known, public_lists.label_matrix(listed["findings"]))
    assert frame.attrs["label_files"].keys() == {public_lists.FILE.name}
    assert (frame["sex"] == "").all()


def test_images_that_no_list_has_are_refused(source, tmp_path):
    lay_out("TorchXRayVision", source, tmp_path)
    table = (tmp_path / LABELS).read_text().splitlines()
    table.append(table[-1].replace(table[-1].split(",")[0], "00099999_000.png", 1))
    fields = table[-1].split(",")
    fields[3] = "99999"
    (tmp_path / LABELS).write_text("\n".join([*table[:-1], ",".join(fields)]))
    with pytest.raises(DataError, match="1 images are not in the official lists, such as 0009"):
        chestxray14.read(tmp_path)


def test_one_list_alone_is_refused(source, tmp_path):
    lay_out("Kaggle, whole", source, tmp_path)
    (tmp_path / LISTS[0]).unlink()
    with pytest.raises(DataError, match=r"has test_list\.txt but no train_val_list\.txt"):
        chestxray14.read(tmp_path)


def test_tar_archives_are_named_with_the_command_that_extracts_them(source, tmp_path):
    copy(source, tmp_path)
    (tmp_path / "images_001.tar.gz").write_bytes(b"")
    with pytest.raises(DataError) as raised:
        chestxray14.read(tmp_path)
    command = f'cd {tmp_path} && for each in *.tar.gz; do tar -xzf "$each"; done'
    assert f"Extract images_001.tar.gz first: {command}" in str(raised.value)


def test_a_damaged_archive_is_named(source, tmp_path):
    lay_out("ZIP archives", source, tmp_path)
    path = tmp_path / "images_002.zip"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"images_002.zip cannot be read .* get it again"):
        chestxray14.read(tmp_path)


def test_a_parquet_file_without_names_is_refused(source, tmp_path):
    write_parquet(source, tmp_path, named=False)
    copy(source, tmp_path)
    with pytest.raises(DataError, match="has no names of its images in image"):
        chestxray14.read(tmp_path)


# The download of NIH's archives


def tar_of(source: Path, names: list[str]) -> bytes:
    """Return a tar.gz of some images, beside members that must not be written."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name in names:
            archive.add(source / "images" / name, f"images/{name}")
        for odd in ("../../outside.png", "images/readme.txt"):
            archive.addfile(tarfile.TarInfo(odd), io.BytesIO())
    return content.getvalue()


@pytest.fixture
def box(source, file_server, monkeypatch):  # noqa: F811
    """Return a server of three small archives in place of NIH's twelve, and its address."""
    handler, address = file_server
    names = names_of(source)
    parts = [tar_of(source, names[at : at + 100]) for at in (0, 100, 200)]
    archives = [(f"{n}.gz", hashlib.md5(part).hexdigest()) for n, part in enumerate(parts)]
    monkeypatch.setattr(chestxray14, "ARCHIVES", archives)
    handler.files = {f"/{name}": part for (name, _), part in zip(archives, parts, strict=True)}
    return handler, address


def test_the_download_reads_as_the_images_resized(box, source, tmp_path):
    handler, address = box
    for _ in range(2):
        chestxray14.download(tmp_path, 32, address)
    assert len(handler.asked) == 3
    assert {path.name for path in tmp_path.iterdir() if path.name[0] != "."} == {
        f"images_{number:03d}-32px.zip" for number in (1, 2, 3)
    }
    frame = chestxray14.read(tmp_path)
    assert frame["image_path"][0].startswith("images_001-32px.zip/images/0000")
    assert frame["image_path"].str.rpartition("/")[2].tolist() == names_of(source)
    for path in frame["image_path"][::60]:
        name = path.rpartition("/")[2]
        ours = read_gray(tmp_path / path, 32)
        np.testing.assert_array_equal(ours, read_gray(source / "images" / name, 32))
    cache = Cache(prepare(tmp_path, frame["image_path"], tmp_path / "c", 32, progress=False))
    assert (cache.shortest, cache.enlarged) == (32, 0)


def test_an_interrupted_download_goes_on_with_the_next_archive(box, tmp_path):
    handler, address = box
    last = handler.files.pop("/1.gz")
    with pytest.raises(DownloadError, match=r"cannot be fetched \(Not Found\).*Or download"):
        chestxray14.download(tmp_path, 32, address)
    handler.files["/1.gz"] = last
    chestxray14.download(tmp_path, 32, address, keep_archives=True)
    assert [path for path, _ in handler.asked] == ["/0.gz", "/1.gz", "/1.gz", "/2.gz"]
    kept = sorted(path.name for path in tmp_path.glob("*.tar.gz"))
    assert kept == ["images_002.tar.gz", "images_003.tar.gz"]


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_cut_archive_is_resumed(box, tmp_path):
    handler, address = box
    size = len(handler.files["/0.gz"])
    handler.stop_after[:] = [size // 2, 0]
    with pytest.raises(DownloadError, match=r"connection was cut.*run this again to resume"):
        chestxray14.download(tmp_path, 32, address)
    chestxray14.download(tmp_path, 32, address)
    assert handler.asked[2] == ("/0.gz", f"bytes={size // 2}-")
    assert visible(tmp_path) == [f"images_{number:03d}-32px.zip" for number in (1, 2, 3)]


def test_another_archive_is_not_kept(box, tmp_path):
    handler, address = box
    handler.files["/1.gz"] = handler.files["/2.gz"]
    with pytest.raises(DownloadError, match=r"MD5 .* instead of .* nothing was kept\. Or"):
        chestxray14.download(tmp_path, 32, address)
    assert visible(tmp_path) == ["images_001-32px.zip"]


@pytest.mark.parametrize(
    ("failure", "raised", "message"),
    [
        (OSError(errno.ENOSPC, "No space left"), UserError, "cannot be written .* free some space"),
        (KeyboardInterrupt(), KeyboardInterrupt, ""),
    ],
)
def test_an_archive_that_is_not_whole_is_made_again(
    failure, raised, message, box, tmp_path, monkeypatch
):
    handler, address = box
    write, written = zipfile.ZipFile.writestr, []

    def fail_once(archive, name, content):
        written.append(name)
        if len(written) == 50:
            raise failure
        write(archive, name, content)

    monkeypatch.setattr(zipfile.ZipFile, "writestr", fail_once)
    with pytest.raises(raised, match=message):
        chestxray14.download(tmp_path, 32, address)
    assert visible(tmp_path) == ["images_001.tar.gz"]
    chestxray14.download(tmp_path, 32, address)
    assert [path for path, _ in handler.asked] == ["/0.gz", "/1.gz", "/2.gz"]
    assert len(chestxray14.read(tmp_path)) == 300


def test_a_killed_process_leaves_no_part(box, tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    (tmp_path / f"{PART}{ended.pid}-images_001-32px.zip").write_bytes(b"half")
    chestxray14.download(tmp_path, 32, box[1])
    assert visible(tmp_path) == [f"images_{number:03d}-32px.zip" for number in (1, 2, 3)]


def test_two_processes_download_each_archive_once(box, tmp_path):
    handler, address = box
    command = (
        "import sys; from pathlib import Path; from data import chestxray14;"
        "chestxray14.ARCHIVES = eval(sys.argv[3]);"
        "chestxray14.download(Path(sys.argv[1]), int(sys.argv[4]), sys.argv[2])"
    )
    common = [sys.executable, "-c", command, str(tmp_path), address, repr(chestxray14.ARCHIVES)]
    pair = [subprocess.Popen([*common, "32"]) for _ in range(2)]
    assert [process.wait() for process in pair] == [0, 0]
    assert sorted(path for path, _ in handler.asked) == ["/0.gz", "/1.gz", "/2.gz"]
    assert visible(tmp_path) == [f"images_{number:03d}-32px.zip" for number in (1, 2, 3)]


def test_a_damaged_download_is_named_without_a_label_file(box, tmp_path):
    chestxray14.download(tmp_path, 32, box[1])
    path = tmp_path / "images_002-32px.zip"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"images_002-32px.zip cannot be read .* get it again"):
        chestxray14.read(tmp_path)


def test_threads_read_a_row_group_once(source, tmp_path, monkeypatch):
    write_parquet(source, tmp_path)
    path = tmp_path / "data" / "train-00000-of-00001.parquet"
    members = containers.names(path)[:8]
    containers.read(path, containers.names(path)[-1])  # the ends of the groups are known now
    opened, parquet = [], containers._parquet

    def slow(path):
        opened.append(path)
        time.sleep(0.1)
        return parquet(path)

    monkeypatch.setattr(containers, "_parquet", slow)
    with ThreadPoolExecutor(8) as pool:
        contents = [*pool.map(lambda member: containers.read(path, member), members)]
    assert contents == [(source / "images" / name).read_bytes() for name in names_of(source)[:8]]
    assert len(opened) == 1


def test_the_largest_images_are_read(box, tmp_path):
    for size in (32, 48):
        chestxray14.download(tmp_path, size, box[1])
    assert "-48px.zip/" in chestxray14.read(tmp_path)["image_path"][0]


def test_the_published_archives_are_those_of_the_label_file():
    assert len({name for name, _ in chestxray14.ARCHIVES}) == 12
    assert all(len(digest) == 32 for _, digest in chestxray14.ARCHIVES)
