"""What `make serve` is asked for: its variables, read from the environment and checked.

    PORT             of the Prefect server, 4200
    REPORTS_PORT     of the reports, 4280
    SERVE_HOST       where the Prefect server listens, 127.0.0.1
    SERVE_FOLDER     for logs and the lock, data/serve
    WORKSPACE        whose reports are shown, data/rsna/workspace
    PNEUMONIA_HOME   that WORKSPACE and the folders of flow runs start from, this checkout
    GPU_WORKERS      workers of the pool `gpu`: one per GPU, or one that trains on the CPU
    POSTGRES         postgresql://user@host/database instead of Prefect's SQLite file
    PREFECT_API_AUTH_STRING   user:password that the server asks for

Passwords stay in the environment: no command line, file or log holds them.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pneumonia.errors import ConfigError

CHECKOUT = Path(__file__).parents[1]
LOOPBACK = "127.0.0.1"

_POSTGRES = re.compile(r"postgres(?:ql)?(?:\+asyncpg)?://(?P<place>.+/.+)")


@dataclass(frozen=True)
class ServeSettings:
    """How to serve.

    Args:
        host: address that the Prefect server listens on.
        port: of the Prefect server.
        reports_port: of the reports, always on 127.0.0.1.
        folder: for logs and the lock.
        workspace: whose reports are shown.
        gpu_workers: for each worker of the pool `gpu` its CUDA_VISIBLE_DEVICES; None leaves the
            variable as it is, for a worker that trains on the CPU.
        database: SQLAlchemy's address of a PostgreSQL database; None for Prefect's SQLite file.
        auth: user:password; None where the server asks for none.
    """

    host: str
    port: int
    reports_port: int
    folder: Path
    workspace: Path
    gpu_workers: tuple[str | None, ...]
    database: str | None = field(default=None, repr=False)
    auth: str | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """The server's page."""
        return f"http://{self.host}:{self.port}"

    @property
    def reports_url(self) -> str:
        """The reports' page."""
        return f"http://{LOOPBACK}:{self.reports_port}"


def read_settings(environment: Mapping[str, str], gpu_count: int) -> ServeSettings:
    """Read the variables; one that is empty counts as unset.

    Args:
        environment: as `os.environ`.
        gpu_count: GPUs that this process may use.

    Raises:
        ConfigError: a variable is not what it should be.
    """
    given = {name: value for name, value in environment.items() if value}
    auth = _auth(given)
    settings = ServeSettings(
        host=_host(given.get("SERVE_HOST", LOOPBACK), auth),
        port=_port(given, "PORT", 4200),
        reports_port=_port(given, "REPORTS_PORT", 4280),
        folder=CHECKOUT / given.get("SERVE_FOLDER", "data/serve"),
        workspace=Path(given.get("PNEUMONIA_HOME", CHECKOUT)).absolute()
        / given.get("WORKSPACE", "data/rsna/workspace"),
        gpu_workers=_gpu_workers(given, gpu_count),
        database=_database(given["POSTGRES"]) if "POSTGRES" in given else None,
        auth=auth,
    )
    if settings.port == settings.reports_port:
        raise ConfigError(
            f"REPORTS_PORT: expected another port than PORT, got {settings.port} for both. "
            "Give one of them another."
        )
    return settings


def _port(given: Mapping[str, str], name: str, default: int) -> int:
    text = given.get(name, str(default))
    if not text.isdecimal() or not 1024 <= int(text) <= 65535:
        raise ConfigError(f"{name}: expected a port from 1024 to 65535, got {text!r}.")
    return int(text)


def _host(text: str, auth: str | None) -> str:
    """An address that clients can be given as it is.

    Whoever reaches a Prefect server can run code on its workers, so an address that other
    machines reach asks for a password.
    """
    try:
        address = ipaddress.IPv4Address(text)
    except ipaddress.AddressValueError:
        raise ConfigError(
            f"SERVE_HOST: expected an IPv4 address of this machine, got {text!r}. "
            f"Leave it out for {LOOPBACK}."
        ) from None
    if address.is_unspecified:
        raise ConfigError(
            f"SERVE_HOST: expected one address of this machine, got {text}, which stands for all "
            "of them. Give the one that the others reach, which their browsers are told."
        )
    if not address.is_loopback and auth is None:
        raise ConfigError(
            f"SERVE_HOST: expected PREFECT_API_AUTH_STRING beside {text}, which other machines "
            "reach, got none. Whoever reaches the server can run code here: set "
            "PREFECT_API_AUTH_STRING=user:password in the environment."
        )
    return text


def _gpu_workers(given: Mapping[str, str], gpu_count: int) -> tuple[str | None, ...]:
    most = max(1, gpu_count)
    text = given.get("GPU_WORKERS", str(most))
    if not text.isdecimal() or int(text) > most:
        raise ConfigError(
            f"GPU_WORKERS: expected a whole number from 0 to {most}, one per GPU of this machine, "
            f"got {text!r}."
        )
    if not gpu_count:
        return (None,) * int(text)
    visible = given.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(index) for index in range(gpu_count)]
    return tuple(name.strip() for name in names[: int(text)])


def _database(text: str) -> str:
    """The address in SQLAlchemy's words; what comes is not told, as it may hold a password."""
    found = _POSTGRES.fullmatch(text)
    if found is None:
        raise ConfigError(
            "POSTGRES: expected an address like postgresql://user@host/database, got another. "
            "Mend it; a password in it is not shown here."
        )
    return f"postgresql+asyncpg://{found['place']}"


def _auth(given: Mapping[str, str]) -> str | None:
    auth = given.get("PREFECT_API_AUTH_STRING")
    if given.get("PREFECT_SERVER_API_AUTH_STRING", auth) != auth:
        raise ConfigError(
            "PREFECT_SERVER_API_AUTH_STRING: expected the same as PREFECT_API_AUTH_STRING, got "
            "another. Set PREFECT_API_AUTH_STRING alone: the server is given it."
        )
    if auth is not None and not all(auth.partition(":")):
        raise ConfigError(
            "PREFECT_API_AUTH_STRING: expected user:password, got something without one of the "
            "two. Mend it; it is not shown here."
        )
    return auth
