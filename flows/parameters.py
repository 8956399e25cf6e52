"""The parameters of the flows, as the UI's form shows them and the server checks them."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

from pydantic import Field

from flows.stages import NAMES
from pneumonia.config import MODELS
from pneumonia.config import Config as Recipe

Raw = Annotated[Path, Field(description="Folder with the challenge's files.")]
Workspace = Annotated[Path, Field(description="Folder for everything the pipeline makes.")]
Persons = Annotated[Path | None, Field(description="Map from image to person.")]
ByImage = Annotated[bool, Field(description="Split by image; people may leak.")]
SplitFile = Annotated[Path | None, Field(description="A given split to obey.")]
Model = Annotated[str, Field(description="The model.", json_schema_extra={"enum": [*MODELS]})]
Models = Annotated[tuple[Model, ...], Field(description="The models.")]
Run = Annotated[str, Field(description="Name of the run whose links move.")]
Config = Annotated[Recipe, Field(description="The recipe.")]
Stage = Annotated[str, Field(description="A stage.", json_schema_extra={"enum": [*NAMES]})]
Until = Annotated[Stage, Field(description="The last stage.")]
Refresh = Annotated[frozenset[Stage], Field(description="Stages to make anew.")]
Anew = Annotated[bool, Field(description="Make the stage anew, changed or not.")]
Verify = Annotated[bool, Field(description="Hash all files before trusting them.")]
Seed = Annotated[int | None, Field(description="One of the seeds; unset: each that is asked for.")]
Installation = Annotated[
    dict[str, str] | None, Field(description="Of the run that sent this one; unset: not checked.")
]

F = TypeVar("F", bound=Callable[..., Any])


def described(function: F) -> F:
    """Write what the parameters mean into a function's docstring, where Prefect's form reads it."""
    hints = get_type_hints(function, include_extras=True)
    lines = [
        f"    {name}: {hint.__metadata__[-1].description}"
        for name, hint in hints.items()
        if hasattr(hint, "__metadata__")
    ]
    told = inspect.getdoc(function) or ""
    function.__doc__ = "\n".join([told, "", "Args:", *lines]).lstrip()
    return function
