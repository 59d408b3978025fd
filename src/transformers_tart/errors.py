"""Errors that a caller may want to tell apart; everything else is a plain ValueError, TypeError or OSError."""


class BackboneNotFoundError(OSError):
    """The backbone that a TART repository refers to cannot be loaded."""


class BackboneMismatchError(ValueError):
    """A support set was embedded by another backbone, or with other options, than those that are to read queries."""


class CorruptFileError(OSError):
    """A file of weights or of a support set is damaged or does not hold what its config announces."""


class MissingPackageError(ImportError, ValueError):
    """A backbone needs a package that is not installed, or another version of one."""


__all__ = ["BackboneMismatchError", "BackboneNotFoundError", "CorruptFileError", "MissingPackageError"]
