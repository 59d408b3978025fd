"""Errors that callers may want to catch; all others are a plain ValueError, TypeError or OSError."""


class BackboneNotFoundError(OSError):
    """The backbone of a TART repository cannot be loaded."""


class BackboneMismatchError(ValueError):
    """A support set was embedded by another backbone, or with other options, than the queries would be."""


class CorruptFileError(OSError):
    """A file of weights or of a support set is damaged, or does not match its config."""


class MissingPackageError(ImportError, ValueError):
    """A backbone needs a package that is not installed, or another version of one."""


# errors whose message is for the user, which the command and the page show without the stack
SHOWN = (ValueError, TypeError, OSError, ImportError, FloatingPointError)

__all__ = ["SHOWN", "BackboneMismatchError", "BackboneNotFoundError", "CorruptFileError", "MissingPackageError"]
