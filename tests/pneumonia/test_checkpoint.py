import dataclasses
import os
import re
import subprocess
import sys
import zipfile

import pytest
import torch
import torchvision

from pneumonia import checkpoint, network
from pneumonia.checkpoint import Checkpoint
from pneumonia.errors import ConfigError, CorruptArtifactError


@pytest.fixture
def trained():
    torch.manual_seed(0)
    return Checkpoint(
        model="custom_cnn",
        network=network.build("custom_cnn").eval(),
        image_size=64,
        crop_size=56,
        mean=network.MEAN,
        std=network.STD,
        fine_maps=False,
        epoch=3,
        val_loss=0.4,
        val_auroc=0.9,
        training={"epochs": 5, "precision": "32"},
    )


@pytest.fixture
def saved(trained, tmp_path):
    path = tmp_path / "checkpoint.ckpt"
    checkpoint.save(trained, path)
    return path


def test_load_gives_back_what_save_wrote(trained, saved):
    loaded = checkpoint.load(saved)
    inputs = torch.randn(2, 1, 64, 64)
    assert torch.equal(loaded.network(inputs), trained.network(inputs))
    assert not loaded.network.training
    assert dataclasses.replace(loaded, network=trained.network) == trained


def test_save_same_weights_gives_same_bytes_whatever_the_path_and_layout(trained, saved, tmp_path):
    trained.network.to(memory_format=torch.channels_last)
    checkpoint.save(trained, tmp_path / "another name.bin")
    assert (tmp_path / "another name.bin").read_bytes() == saved.read_bytes()


def test_save_in_another_process_gives_same_bytes(saved, tmp_path):
    code = (
        "import sys, pathlib; from pneumonia import checkpoint;"
        "source, target = map(pathlib.Path, sys.argv[1:]);"
        "checkpoint.save(checkpoint.load(source), target)"
    )
    again = tmp_path / "again.ckpt"
    subprocess.run([sys.executable, "-c", code, saved, again], check=True)
    assert again.read_bytes() == saved.read_bytes()


def test_loads_with_torch_alone(saved):
    content = torch.load(saved, weights_only=True)
    assert content["model"] == "custom_cnn"
    assert content["training"] == {"epochs": 5, "precision": "32"}
    assert content["state_dict"]["head.weight"].shape == (1, 144)


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.5, 0.99])
def test_load_torn_file_raises(saved, fraction):
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(len(whole) * fraction)])
    with pytest.raises(CorruptArtifactError, match=r"checkpoint.ckpt: expected a file of tensors"):
        checkpoint.load(saved)


def test_load_refuses_code(tmp_path):
    path = tmp_path / "checkpoint.ckpt"
    torch.save({"format": 1, "model": print}, path)
    with pytest.raises(CorruptArtifactError, match="tensors and plain values"):
        checkpoint.load(path)


def test_load_refuses_a_newer_format(saved):
    content = torch.load(saved, weights_only=True)
    torch.save(content | {"format": 2}, saved)
    with pytest.raises(CorruptArtifactError, match="of format 1, got 2"):
        checkpoint.load(saved)


def test_load_refuses_tensors_of_another_model_by_name(saved):
    content = torch.load(saved, weights_only=True)
    torch.save(content | {"model": "resnet18"}, saved)
    with pytest.raises(CorruptArtifactError, match=r"missing 120 \(first: body.bn1.bias\)"):
        checkpoint.load(saved)


@pytest.mark.parametrize("other", [{"mean": 0.5}, {"std": 0.25}, {"std": None}])
def test_load_refuses_another_normalisation_than_it_would_be_given(saved, other):
    content = torch.load(saved, weights_only=True)
    torch.save(content | other, saved)
    with pytest.raises(CorruptArtifactError, match=r"normalised by mean 0.449.*--refresh training"):
        checkpoint.load(saved)


def test_load_refuses_a_checkpoint_without_its_figures(saved):
    content = torch.load(saved, weights_only=True)
    del content["val_loss"]
    torch.save(content, saved)
    with pytest.raises(CorruptArtifactError, match="val_loss"):
        checkpoint.load(saved)


def test_read_weights_of_a_checkpoint_and_of_bare_tensors(trained, saved, tmp_path):
    expected = trained.network.state_dict()
    bare = tmp_path / "bare.pth"
    torch.save(expected, bare)
    for path in (saved, bare):
        weights = checkpoint.read_weights(path)
        assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())


def test_read_weights_of_something_else_raises(tmp_path):
    path = tmp_path / "weights.pth"
    with pytest.raises(ConfigError, match=r"weights.pth: expected a file of tensors"):
        checkpoint.read_weights(path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(ConfigError, match="expected tensors by name"):
        checkpoint.read_weights(path)
    torch.save([1, 2], path)
    with pytest.raises(ConfigError, match="expected named tensors, got list"):
        checkpoint.read_weights(path)


@pytest.mark.parametrize("fine_maps", [False, True])
def test_check_weights_accepts_those_of_the_model(tmp_path, fine_maps):
    path = tmp_path / "weights.pth"
    torch.save(network.build("custom_cnn", fine_maps=fine_maps).state_dict(), path)
    checkpoint.check_weights(path, "custom_cnn")


def test_check_weights_accepts_torchvisions_file(tmp_path):
    path = tmp_path / "resnet18.pth"
    torch.save(torchvision.models.resnet18().state_dict(), path)
    checkpoint.check_weights(path, "resnet18")


def test_check_weights_of_another_model_names_file_and_cure(saved):
    told = r"checkpoint.ckpt: expected weights of resnet18.*missing 120 .*with --models NAME, or"
    with pytest.raises(ConfigError, match=told):
        checkpoint.check_weights(saved, "resnet18")


def test_check_weights_of_torchvisions_names_and_a_strange_shape_names_the_file(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"conv1.weight": torch.zeros(64, 2, 7, 7)}, path)
    with pytest.raises(ConfigError, match=r"other.pth: expected weights of resnet18"):
        checkpoint.check_weights(path, "resnet18")


def test_check_weights_of_a_missing_file_raises(tmp_path):
    with pytest.raises(ConfigError, match=r"weights.pth: expected a file of tensors"):
        checkpoint.check_weights(tmp_path / "weights.pth", "resnet18")


def test_plain_tensors_share_no_memory():
    tensor = torch.zeros(4)
    copies = checkpoint.plain_tensors({"a": tensor, "b": tensor[:2]})
    tensor += 1
    assert copies["a"].sum() == 0
    assert copies["b"].untyped_storage().nbytes() == 8


def rewritten(saved, change, compression=zipfile.ZIP_STORED):
    """The checkpoint's archive once more, its first member changed: what says what it holds."""
    with zipfile.ZipFile(saved) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    first = next(iter(members))
    with zipfile.ZipFile(saved, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, change(content) if name == first else content)


def test_load_compressed_member_is_refused_before_it_is_unpacked(saved):
    rewritten(saved, lambda _: bytes(50 << 20), zipfile.ZIP_DEFLATED)
    assert saved.stat().st_size < 5 << 20  # but for 50 MiB of zeros it is as it was
    with pytest.raises(
        CorruptArtifactError, match=r"checkpoint\.ckpt: expected .* got other bytes"
    ):
        checkpoint.load(saved)


def test_load_pickle_of_an_unheard_of_protocol_raises_no_warning(saved):
    rewritten(saved, lambda content: b"\x80\x5a" + content[2:])
    assert checkpoint.load(saved).epoch == 3  # warnings are errors here


def test_load_pickle_cut_within_a_number_is_refused_by_name(saved):
    rewritten(saved, lambda _: b"\x80\x02J\x01")  # BININT with one of its four bytes
    with pytest.raises(CorruptArtifactError, match=r"got other bytes"):
        checkpoint.load(saved)


def test_read_weights_older_form_with_a_lost_storage_is_refused_by_name(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    key = re.search(rb"X.\0\0\0(\d{8,})", content, re.DOTALL)
    path.write_bytes(content.replace(key[1], b"7" * len(key[1]), 1))  # named twice in the file
    with pytest.raises(ConfigError, match=r"weights\.pth: expected a file of tensors"):
        checkpoint.read_weights(path)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("image_size", "64", "str for image_size"),
        ("epoch", True, "bool for epoch"),
        ("training", [1], "list for training"),
        ("state_dict", [1], "state_dict"),
        ("state_dict", {"head.bias": torch.ones(1, dtype=torch.complex64)}, "state_dict"),
    ],
)
def test_load_value_of_another_kind_is_refused_by_name(saved, field, value, told):
    content = torch.load(saved, weights_only=True)
    torch.save({**content, field: value}, saved)
    with pytest.raises(CorruptArtifactError, match=told):
        checkpoint.load(saved)


def test_read_weights_names_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({1: torch.ones(1), "a": torch.ones(1)}, path)
    with pytest.raises(ConfigError, match=r"names that are no text"):
        checkpoint.read_weights(path)


def test_load_of_a_pipe_is_refused_without_waiting_for_its_writer(tmp_path):
    os.mkfifo(tmp_path / "pipe.ckpt")
    with pytest.raises(CorruptArtifactError, match=r"pipe\.ckpt: .*got no regular file"):
        checkpoint.load(tmp_path / "pipe.ckpt")
