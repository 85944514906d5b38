"""What a caller may catch. Every message says what was expected, what came, where, and what to do."""


class CryopickError(Exception):
    """Base of every error that cryopick raises on purpose."""


class InputError(CryopickError):
    """The user's files or folders cannot be used: missing, empty, unreadable, not a micrograph."""


class NotAllDoneError(CryopickError):
    """A command came to its end, but something that it was asked for could not be done; the rest is finished."""


class NoneDoneError(NotAllDoneError, InputError):
    """A command came to its end, and nothing of what it was asked for could be done."""


class NothingArrivedError(InputError):
    """No whole micrograph came while a folder was followed."""


class FormatError(InputError):
    """A file exists but its content is not what its format promises (truncated, malformed, foreign)."""


class OutputError(CryopickError):
    """A file cannot be written: disk full, no permission, a folder of that name."""


class SettingsError(CryopickError, ValueError):
    """A setting has an impossible value, an unknown name or an unknown unit."""


class UnknownPixelSizeError(SettingsError):
    """A length in Å meets a micrograph of unknown pixel size; with other micrographs the same settings may work."""


class WeightsError(CryopickError):
    """A checkpoint is missing, damaged, or belongs to another architecture."""


class TrainingError(CryopickError):
    """Training cannot go on: the loss is not finite, or the data give nothing to learn from."""


class MissingExtraError(CryopickError, ImportError):
    """An optional dependency is not installed; the message holds the pip command that installs it."""


class RunFolderError(CryopickError):
    """A run folder belongs to other settings, is not a run folder, or cannot be written."""


class NotARunFolderError(InputError, RunFolderError):
    """What was given as a run folder is none."""


class WorkerError(CryopickError):
    """No process here can do the work, or none can be started; what was finished before is kept."""


class ServerError(CryopickError):
    """The server of another program does not answer, or refuses what it is asked."""
