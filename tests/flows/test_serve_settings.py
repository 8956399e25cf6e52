"""What `make serve` takes from the environment, and what it refuses."""

import pytest

from flows.serve_settings import CHECKOUT, read_settings
from pneumonia.errors import ConfigError

AUTH = {"PREFECT_API_AUTH_STRING": "clinic:w0rd"}


def test_nothing_given_is_this_machine_alone_with_one_worker_on_the_cpu():
    settings = read_settings({}, 0)
    assert settings.url == "http://127.0.0.1:4200"
    assert settings.reports_url == "http://127.0.0.1:4280"
    assert settings.folder == CHECKOUT / "data" / "serve"
    assert settings.workspace == CHECKOUT / "data" / "rsna" / "workspace"
    assert settings.gpu_workers == (None,)
    assert (settings.database, settings.auth) == (None, None)


def test_an_empty_variable_is_an_unset_one():
    given = dict.fromkeys(("PORT", "POSTGRES", "PREFECT_API_AUTH_STRING", "GPU_WORKERS"), "")
    assert read_settings(given, 2) == read_settings({}, 2)


def test_the_workspace_starts_from_where_flow_runs_do(tmp_path):
    given = {"PNEUMONIA_HOME": str(tmp_path)}
    assert read_settings(given, 0).workspace == tmp_path / "data" / "rsna" / "workspace"
    assert read_settings(given | {"WORKSPACE": "/w"}, 0).workspace.parts == ("/", "w")


@pytest.mark.parametrize(
    ("given", "gpus", "expected"),
    [
        ({}, 0, (None,)),
        ({}, 3, ("0", "1", "2")),
        ({"GPU_WORKERS": "0"}, 3, ()),
        ({"GPU_WORKERS": "2"}, 3, ("0", "1")),
        ({"CUDA_VISIBLE_DEVICES": "5,GPU-a1"}, 2, ("5", "GPU-a1")),
        ({"CUDA_VISIBLE_DEVICES": "3, 1", "GPU_WORKERS": "1"}, 2, ("3",)),
    ],
)
def test_a_worker_per_gpu(given, gpus, expected):
    assert read_settings(given, gpus).gpu_workers == expected


@pytest.mark.parametrize(
    "text", ["postgresql://u:p@h/d", "postgres://u:p@h/d", "postgresql+asyncpg://u:p@h/d"]
)
def test_a_database_in_the_words_of_sqlalchemy(text):
    assert read_settings({"POSTGRES": text}, 0).database == "postgresql+asyncpg://u:p@h/d"


def test_another_address_of_this_machine_with_a_password():
    settings = read_settings(AUTH | {"SERVE_HOST": "192.0.2.7"}, 0)
    assert settings.url == "http://192.0.2.7:4200"
    assert settings.reports_url == "http://127.0.0.1:4280"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"PORT": "80"}, "PORT: expected a port from 1024 to 65535, got '80'"),
        ({"PORT": "4200 "}, "PORT: expected a port"),
        ({"REPORTS_PORT": "reports"}, "REPORTS_PORT: expected a port"),
        ({"REPORTS_PORT": "65536"}, "REPORTS_PORT: expected a port"),
        ({"REPORTS_PORT": "4200"}, "expected another port than PORT, got 4200 for both"),
        ({"GPU_WORKERS": "2"}, "GPU_WORKERS: expected a whole number from 0 to 1"),
        ({"GPU_WORKERS": "-1"}, "GPU_WORKERS: expected"),
        ({"SERVE_HOST": "localhost"}, "SERVE_HOST: expected an IPv4 address"),
        ({"SERVE_HOST": "192.0.2.7"}, "expected PREFECT_API_AUTH_STRING beside 192.0.2.7"),
        (AUTH | {"SERVE_HOST": "0.0.0.0"}, "got 0.0.0.0, which stands for all"),  # noqa: S104 (refused)
        ({"POSTGRES": "mysql://u:w0rd@h/d"}, "POSTGRES: expected an address like postgresql://"),
        ({"POSTGRES": "postgresql://w0rd"}, "POSTGRES: expected an address like postgresql://"),
        ({"PREFECT_API_AUTH_STRING": "w0rd"}, "expected user:password"),
        ({"PREFECT_API_AUTH_STRING": ":w0rd"}, "expected user:password"),
        (AUTH | {"PREFECT_SERVER_API_AUTH_STRING": "a:w0rd2"}, "expected the same as PREFECT_API"),
        ({"PREFECT_SERVER_API_AUTH_STRING": "a:w0rd"}, "expected the same as PREFECT_API"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence_without_a_password(given, told):
    with pytest.raises(ConfigError) as refused:
        read_settings(given, 0)
    assert told in str(refused.value)
    assert "w0rd" not in str(refused.value)


def test_a_password_is_not_in_what_settings_are_printed_as():
    settings = read_settings(AUTH | {"POSTGRES": "postgresql://u:w0rd@h/d"}, 0)
    assert "w0rd" not in repr(settings)
