"""Every failure this project expects, as one tree.

    PneumoniaError                  an expected failure: one sentence, no traceback
    ├── ConfigError (ValueError)    a setting, an argument or a missing input; nothing has run
    │   └── NothingLeftError        every image is one that the model's home run has
    ├── DataError                   the data given to a stage are not what they should be
    │   ├── LabelError              the challenge's CSV files
    │   ├── DicomError              one DICOM file, with a reason from a fixed vocabulary
    │   ├── ShardError              the image pool
    │   │   └── QuarantineError     too many files are broken
    │   └── SplitError              persons, sides and what connects them
    ├── TrainingError               a training that cannot go on
    └── ArtifactError               the workspace
        ├── StaleArtifactError      made from inputs that have changed since
        └── CorruptArtifactError    a file that is missing, torn or altered

Messages say what was expected, what came, where, and the cure. Wrong arguments of pure
functions stay `ValueError`.
"""


class PneumoniaError(Exception):
    """An expected failure, told in one sentence."""


class ConfigError(PneumoniaError, ValueError):
    """A request that cannot be carried out as it stands; nothing has run."""


class NothingLeftError(ConfigError):
    """An external test of images of which none is new, which only their pixels told."""


class DataError(PneumoniaError):
    """Data that are not what a stage needs."""


class LabelError(DataError):
    """A label file that breaks the challenge's layout."""


class DicomError(DataError):
    """A DICOM file that cannot become an image.

    Args:
        reason: one word of the fixed vocabulary `pneumonia.dicom.REASONS`.
        detail: the sentence, without the file's name.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["DicomError"], tuple[str, str]]:
        """Keep both arguments when the error crosses a process boundary."""
        return type(self), (self.reason, self.detail)


class ShardError(DataError):
    """The image pool cannot be made or read."""


class QuarantineError(ShardError):
    """More files are broken than `shards.max_quarantined` allows."""


class SplitError(DataError):
    """Train, val and test cannot be made as asked."""


class TrainingError(PneumoniaError):
    """A training that cannot go on."""


class ArtifactError(PneumoniaError):
    """An artifact of the workspace cannot be used."""


class StaleArtifactError(ArtifactError):
    """An artifact was made from inputs that have changed since."""


class CorruptArtifactError(ArtifactError):
    """A file of an artifact is missing, torn or altered."""
