"""Damaged inputs for every reader, and the child process that reads them within bounds.

A child reads many inputs: its address space may grow by 1 GiB over what the sound inputs took, and
an input that takes longer than 5 seconds ends it by SIGALRM, which no reader can hold up. The
input under way lies beside the results, so that a child's death is told with its cause.
"""

import contextlib
import hashlib
import io
import json
import logging
import resource
import signal
import warnings
import zipfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import films
import numpy as np
import pandas as pd
import torch
from dicom_files import FILES, READABLE

from pneumonia import checkpoint, network
from pneumonia.artifacts import (
    canonical_json,
    find_damage,
    read_manifest,
    read_table,
)
from pneumonia.config import parse_settings
from pneumonia.conversion import Recipe, convert
from pneumonia.errors import PneumoniaError
from pneumonia.labels import CLASSES_CSV, LABELS_CSV, read_labels
from pneumonia.persons import read_persons
from pneumonia.split import read_split_file

SECONDS = 5
GROWTH = 1 << 30
"""Bytes of address space over what the child holds after reading the sound inputs."""

_LENGTHS = [b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\xff" * 8, b"\xff\xff"]
_WORDS = [
    b"[" * 5000, b'{"a":' * 5000, b"9" * 6000, b"1e999", b"NaN", b"-Infinity", b"null", b"\0",
    b'"', b"\r", b"=1+1", b"../../x", b"\xff\xfe", b"\\ud800", b",,,,", b"A" * 200_000,
    b"99999999999999999999", b"-1", b'{"a": 1}', b"[]", b"true",
]  # fmt: skip


def _dicom(data, _):
    convert(data, "x", Recipe(32, ("*",), 0))


def _labels(data, folder):
    (folder / LABELS_CSV).write_bytes(data)
    read_labels(folder)


def _classes(data, folder):
    (folder / LABELS_CSV).write_bytes(SOUND["labels"]()[0])
    (folder / CLASSES_CSV).write_bytes(data)
    try:
        read_labels(folder)
    finally:
        (folder / CLASSES_CSV).unlink()


def _persons_csv(data, folder):
    read_persons(_file(data, folder / "persons.csv"), 10.0)


def _persons_json(data, folder):
    read_persons(_file(data, folder / "persons.json"), 10.0)


def _split_file(data, folder):
    read_split_file(_file(data, folder / "split.csv"))


def _table(data, folder):
    read_table(_file(data, folder / "table.parquet"))


def _checkpoint(data, folder):
    checkpoint.load(_file(data, folder / "checkpoint.ckpt"))


def _weights(data, folder):
    checkpoint.build_from(_file(data, folder / "weights.pth"), "custom_cnn")


def _manifest(data, folder):
    (folder / "table.parquet").write_bytes(b"0123")
    _file(data, folder / "manifest.json")
    find_damage(folder, read_manifest(folder), hashed=True)


def _settings(data, _):
    parse_settings(data.decode("utf-8", "surrogateescape").split("\n"))


def _file(data, path):
    path.write_bytes(data)
    return path


READERS = {
    "dicom": _dicom, "labels": _labels, "classes": _classes, "persons csv": _persons_csv,
    "persons json": _persons_json, "split file": _split_file, "parquet": _table,
    "checkpoint": _checkpoint, "weights": _weights, "manifest": _manifest, "settings": _settings,
}  # fmt: skip


def _sound_dicom():
    small = [FILES[name] for name in READABLE if FILES[name].stat().st_size < 150_000]
    deep = films.phantom().astype(np.uint16) << 4
    made = [films.jpeg_film(films.phantom()), films.native_film(deep, bits=12)]
    return [*made, *(path.read_bytes() for path in small)]


def _sound_labels():
    rows = ["a,,,,,0", "b,1.0,2.0,30.0,40.0,1", "b,50,60,7,8,1", "c,,,,,0"]
    return ["\n".join(["patientId,x,y,width,height,Target", *rows, ""]).encode()]


def _sound_table():
    table = pd.DataFrame(
        {"image_id": [f"image-{n}" for n in range(50)], "row": range(50), "age": [None, 7.5] * 25}
    )
    buffers = [io.BytesIO(), io.BytesIO()]
    table.to_parquet(buffers[0], index=False, compression="zstd")
    table.to_parquet(buffers[1], index=True, compression=None)
    return [buffer.getvalue() for buffer in buffers]


def _sound_checkpoint():
    torch.manual_seed(0)
    model = network.build("custom_cnn").eval()
    figures = {"epoch": 3, "val_loss": 0.4, "val_auroc": 0.9, "training": {"epochs": 5}}
    content = {
        "model": "custom_cnn", "image_size": 64, "crop_size": 56, "mean": network.MEAN,
        "std": network.STD, "fine_maps": False, **figures, "format": checkpoint.FORMAT,
        "state_dict": checkpoint.plain_tensors(model.state_dict()),
    }  # fmt: skip
    return [checkpoint.dump(content)]


def _sound_weights():
    model = network.build("custom_cnn")
    legacy = io.BytesIO()
    torch.save(model.state_dict(), legacy, _use_new_zipfile_serialization=False)
    return [checkpoint.dump(dict(model.state_dict())), legacy.getvalue()]


def _sound_manifest():
    content = {
        "stage": "labels", "key": "0" * 32, "version": 1, "inputs": {"labels": "1" * 32},
        "configuration": {"a": {"b": 1}}, "code": "", "libraries": {"numpy": "2"},
        "facts": {"images": 3}, "files": {"table.parquet": {"size": 4, "sha256": "2" * 64}},
    }  # fmt: skip
    return [canonical_json(content).encode()]


SOUND = {
    "dicom": _sound_dicom,
    "labels": _sound_labels,
    "classes": lambda: [b"patientId,class\na,Normal\nb,Lung Opacity\nc,Normal\n"],
    "persons csv": lambda: [
        b"patientId,person\na,1\nb,2\n",
        b"patientId,nih_image,match_mse\na,01_000.png,1.5\nb,02_000.png,\n",
    ],
    "persons json": lambda: [
        json.dumps([{"subset_img_id": name, "img_id": f"0{name}_1.png"} for name in "123"]).encode()
    ],
    "split file": lambda: [b"patientId,split\na,train\nb,val\nc,test\n"],
    "parquet": _sound_table,
    "checkpoint": _sound_checkpoint,
    "weights": _sound_weights,
    "manifest": _sound_manifest,
    "settings": lambda: [
        b"training.learning_rate=0.01\nshards.image_size=128",
        b'training.seeds=[0, 1]\nshards.accept=CR,DX\ntraining.weights="none"',
    ],
}


def mutate(reader, rng, sound):
    """One damaged input, the same for the same state of `rng`."""
    data = sound[int(rng.integers(len(sound)))]
    if reader in {"checkpoint", "weights"} and data[:2] == b"PK" and rng.random() < 0.7:
        return _other_archive(data, rng)
    text = reader not in {"dicom", "parquet", "checkpoint", "weights"}
    changed = _damaged(data, rng, text, sound)
    return _sealed(changed) if reader == "manifest" else changed


def _damaged(data, rng, text, others=()):
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        place = int(len(changed) * rng.random() ** int(rng.integers(1, 4)))
        if rng.random() < 0.3:  # lengths often stand at the end (Parquet, archives)
            place = max(0, len(changed) - 1 - place % 4096)
        size = int(rng.integers(1, 64))
        kind = int(rng.integers(8 if text else 6))
        if kind <= 1 and place < len(changed):
            changed[place] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            del changed[place : place + size]
        elif kind == 3 and others:
            other = others[int(rng.integers(len(others)))]
            start = int(rng.integers(len(other)))
            changed[place : place + size] = other[start : start + size]
        elif kind == 4:
            changed[place : place + size] = rng.bytes(size)
        elif kind == 5:
            length = _LENGTHS[int(rng.integers(len(_LENGTHS)))]
            changed[place : place + len(length)] = length
        else:
            changed[place : place + (size % 5)] = _WORDS[int(rng.integers(len(_WORDS)))]
    return bytes(changed[: len(changed) // 2] if rng.random() < 0.1 else changed)


def _other_archive(data, rng):
    """The archive written again, whole as an archive, with one member changed or a bomb in it."""
    source, out = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    names = source.namelist()
    victim = names[0] if rng.random() < 0.6 else names[int(rng.integers(len(names)))]
    bomb = rng.random() < 0.03
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            content = source.read(name)
            if name == victim and bomb:
                info = zipfile.ZipInfo(name)
                info.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(info, "w") as member:
                    for _ in range(1200):
                        member.write(bytes(1 << 20))
                continue
            archive.writestr(name, _damaged(content, rng, False) if name == victim else content)
    return out.getvalue()


def _sealed(data):
    """A manifest with the right digest of itself, where it is still JSON: anybody can write one."""
    try:
        content = json.loads(data)
        content["digest"] = hashlib.sha256(canonical_json(content).encode()).hexdigest()
        return json.dumps(content).encode()
    except (ValueError, TypeError, RecursionError, KeyError, AttributeError):
        return data


@contextlib.contextmanager
def bounded_child(folder):
    """A function that reads inputs in a child: what ended otherwise than it may, as sentences."""
    with ProcessPoolExecutor(1, get_context("spawn"), _prepare, (folder,)) as child:
        yield lambda reader, seed, cases: child.submit(_read, reader, seed, cases, folder).result()


def _prepare(folder):
    torch.set_num_threads(1)
    logging.disable()
    warnings.simplefilter("error")
    for reader, read in READERS.items():
        for data in SOUND[reader]():
            with contextlib.suppress(PneumoniaError):
                read(_sealed(data) if reader == "manifest" else data, folder)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + GROWTH, resource.RLIM_INFINITY))


def _read(reader, seed, cases, folder):
    """How many inputs were read and refused, and those that did neither."""
    sound, read, refused, wrong = SOUND[reader](), 0, 0, []
    for case in cases:
        # The words go in as bytes: `hash` of text differs from process to process.
        rng = np.random.default_rng([seed, case, *reader.encode()])
        data = mutate(reader, rng, sound)
        (folder / "under way").write_bytes(data)
        signal.alarm(SECONDS)
        try:
            READERS[reader](data, folder)
            read += 1
        except PneumoniaError:
            refused += 1
        except BaseException as error:  # noqa: BLE001 (what else there may be is what is asked)
            wrong.append(f"{reader} {case}: {type(error).__name__}: {str(error)[:200]}")
        finally:
            signal.alarm(0)
    return read, refused, wrong
