import dataclasses
import re

import pytest

from pneumonia.config import Config, as_dict, parse, parse_settings
from pneumonia.errors import ConfigError


def test_defaults_have_the_recipe_of_the_readme():
    config = Config()
    assert (config.shards.image_size, config.crop_size) == (256, 224)


def test_crop_size_unset_is_seven_eighths_of_the_image():
    assert parse_settings(["shards.image_size=128"]).crop_size == 112


def test_crop_size_set_is_taken():
    assert parse_settings(["training.crop_size=200"]).crop_size == 200


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("training.epochs=0", "training.epochs: expected greater than or equal to 1, got 0"),
        ("training.epochs=abc", "training.epochs: expected a valid integer"),
        ("training.epoch=3", "training.epoch: no such setting; training has epochs,"),
        ("trainng.epochs=3", "trainng: no such setting; the sections are shards,"),
        ("training.precision=16", "training.precision: expected 'auto', '32' or 'bf16'"),
        ("training.crop_size=300", "training.crop_size must not exceed shards.image_size"),
        ("split.val_fraction=0.95", "val_fraction + test_fraction must be below 1"),
        ("split.test_fraction=nan", "split.test_fraction: expected"),
        ("shards.max_quarantined=1.5", "shards.max_quarantined: expected less than or equal to 1"),
        ("training.learning_rate=-1", "training.learning_rate: expected greater than 0"),
        ("training.learning_rate=Infinity", "training.learning_rate: expected a finite number"),
        ("training.learning_rate=1e999", "training.learning_rate: expected a finite number"),
        ("shards.quiet_seconds=Infinity", "shards.quiet_seconds: expected a finite number"),
        ("shards.quiet_seconds=NaN", "shards.quiet_seconds: expected a finite number"),
        ("training.seed=-1", "training.seed: expected greater than or equal to 0, got -1"),
        ("training.seed=4294967296", "training.seed: expected less than 2147483648"),
        ("evaluation.seed=-1", "evaluation.seed: expected greater than or equal to 0, got -1"),
        ("split.seed=" + "9" * 60, "split.seed: expected less than 2147483648"),
        ("runtime.devices=3", "training.batch_size must deal at least two images to each of"),
        ("runtime.devices=32", "training.batch_size must deal at least two images to each of"),
        ("runtime.devices=0", "runtime.devices: expected greater than or equal to 1, got 0"),
        ("epochs=3", "--set: expected `section.field=value`, got 'epochs=3'"),
        ("training.epochs", "--set: expected `section.field=value`"),
    ],
)
def test_bad_setting_is_refused_with_its_name_and_what_was_expected(setting, told):
    with pytest.raises(ConfigError, match=re.escape(told)) as refusal:
        parse_settings([setting])
    assert "\n" not in str(refusal.value)


def test_several_bad_settings_are_all_told():
    with pytest.raises(ConfigError, match=r"training\.epochs.*; .*cam\.n_images"):
        parse_settings(["training.epochs=0", "cam.n_images=-1"])


def test_later_setting_wins():
    assert parse_settings(["training.seed=1", "training.seed=2"]).training.seed == 2


@pytest.mark.parametrize("text", ["none", "imagenet", "12", "weights/a=b.pt"])
def test_weights_are_text_whatever_they_look_like(text):
    assert parse_settings([f"training.weights={text}"]).training.weights == text


def test_lists_and_null_are_read_as_json():
    config = parse_settings(['shards.accept=["CR", "MR"]', "training.crop_size=null"])
    assert config.shards.accept == ("CR", "MR")
    assert config.training.crop_size is None


def test_plain_values_and_back_are_equal():
    config = parse_settings(["training.epochs=3", "split.seed=7"])
    assert parse(as_dict(config)) == config


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().training.epochs = 3  # type: ignore[misc]


def test_every_field_says_what_it_is():
    sections = [getattr(Config(), field.name) for field in dataclasses.fields(Config)]
    for section in sections:
        for field in type(section).__pydantic_fields__.items():
            name, info = field
            assert info.description, f"{type(section).__name__}.{name} has no description"


@pytest.mark.parametrize("text", ["CR, *", '["CR", "*"]'])
def test_accept_takes_words_and_lists(text):
    assert parse_settings([f"shards.accept={text}"]).shards.accept == ("CR", "*")


@pytest.mark.parametrize("text", ["9" * 6000, "[" * 100_000], ids=["digits", "brackets"])
def test_parse_settings_number_or_list_that_python_cannot_read_is_a_bad_value(text):
    with pytest.raises(ConfigError, match=r"training\.epochs: .*, got '.{98}…$") as refused:
        parse_settings([f"training.epochs={text}"])
    assert len(str(refused.value)) < 300
