"""Every error that Pinmill raises on purpose: what, the value, what was expected, the next step.

PinmillError                    exit code 4 unless it says otherwise
├── ProjectError                no project here, or a notebook or setting of it is malformed (2)
├── ParameterError              ValueError: unknown, misspelt, wrongly typed or out of range (2)
├── SecretError                 a `secret:NAME` whose value is not set (2)
├── OutsideError                second parent: it does not answer, is too busy or locked, so that later it may work
├── SourceError                 the outside input cannot be read, or is not the one that was promised
│   ├── SourceBusyError         OutsideError
│   └── SourceNotFoundError     FileNotFoundError
├── DataError                   ValueError: a table breaks its contract
├── BoardError                  a board cannot do what was asked
│   ├── PinNotFoundError        FileNotFoundError
│   ├── PinNameError            ValueError: a name outside `^[a-z0-9][a-z0-9_-]{0,63}$` (2)
│   └── IntegrityError          bytes differ from their recorded SHA-256 (1)
├── StoreError                  the store cannot be read or written
│   └── StoreBusyError          OutsideError
├── ModelError                  a model cannot be saved or loaded
│   └── UntrustedTypeError      a model file names a type outside the allow-list
├── ChampionError               the champion cannot be moved like this (2)
│   └── ConflictError           somebody else moved it first
├── RunError                    a run could not start or finish
│   ├── LockedError             the lock of this workflow and job, or of backups, is held (75)
│   └── StageError              a cell raised, hung, or lost its kernel
│       └── StageOutsideError   OutsideError: what the cell raised came from outside
├── ReportError                 a page could not be rendered
├── BackupError                 a backup cannot be made, read, or restored here
└── ClientError                 a service did not do what a client asked; has `status` and `errors`
    ├── NotAllowedError         PermissionError: no token, or one whose role is too small
    ├── WrongColumnsError       DataError: rows do not fit, all of them named
    ├── BusyError               OutsideError: too many requests, no model ready, or something else at work: later
    ├── ModelChangedError       the model that was asked first is gone
    └── UnreachableError        OutsideError, ConnectionError: nobody answers at this address
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


class PinmillError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command ends with."""

    exit_code = 4


class ProjectError(PinmillError):
    exit_code = 2


class ParameterError(PinmillError, ValueError):
    exit_code = 2


class SecretError(PinmillError):
    exit_code = 2


class OutsideError(PinmillError):
    pass


class SourceError(PinmillError):
    pass


class SourceBusyError(SourceError, OutsideError):
    pass


class SourceNotFoundError(SourceError, FileNotFoundError):
    pass


class DataError(PinmillError, ValueError):
    pass


class BoardError(PinmillError):
    pass


class PinNotFoundError(BoardError, FileNotFoundError):
    pass


class PinNameError(BoardError, ValueError):
    exit_code = 2


class IntegrityError(BoardError):
    exit_code = 1


class StoreError(PinmillError):
    pass


class StoreBusyError(StoreError, OutsideError):
    pass


class ModelError(PinmillError):
    pass


class UntrustedTypeError(ModelError):
    pass


class ChampionError(PinmillError):
    exit_code = 2


class ConflictError(ChampionError):
    pass


class RunError(PinmillError):
    pass


class LockedError(RunError):
    exit_code = 75


class StageError(RunError):
    pass


class StageOutsideError(StageError, OutsideError):
    pass


class ReportError(PinmillError):
    pass


class BackupError(PinmillError):
    pass


class ClientError(PinmillError):
    """`status` is HTTP's, 0 without an answer; `errors` names each violation, as {row, field, problem}."""

    def __init__(self, said: str, *, status: int = 0, errors: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(said)
        self.status, self.errors = status, list(errors)


class NotAllowedError(ClientError, PermissionError):
    pass


class WrongColumnsError(ClientError, DataError):
    pass


class BusyError(ClientError, OutsideError):
    pass


class ModelChangedError(ClientError):
    pass


class UnreachableError(ClientError, OutsideError, ConnectionError):
    pass


def describe_problems(where: str, problems: Sequence[str]) -> str:
    """One message for all violations: '3 problems in 'raw': …; …; …'."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return f"{count} in {where}: " + "; ".join(problems)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """' Did you mean 'n_trees'?' for the closest of `known`, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
