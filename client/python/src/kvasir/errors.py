"""What calls raise: one class for each code that callers tell apart, all of them KvasirError."""
import enum
import typing


class Code(enum.IntEnum):
    """As gRPC's."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class KvasirError(Exception):
    """A call that failed. Its text names the field and its bound, or the figures.

    code: what kind of error.
    retry_after_s: seconds, where the daemon has said when to ask again; to ask sooner is of no use.
    budget, missing, holder: of a shortage, the configuration's key, what is missing in its unit and
        who has it; None where the daemon has not said (the text has the figures then).
    """

    def __init__(self, code: Code, text: str, *, retry_after_s: typing.Optional[float] = None,
                 budget: typing.Optional[str] = None, missing: typing.Optional[int] = None,
                 holder: typing.Optional[str] = None) -> None:
        super().__init__(text)
        self.code = code
        self.retry_after_s = retry_after_s
        self.budget = budget
        self.missing = missing
        self.holder = holder

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code.name}, {str(self)!r})"


class InvalidArgumentError(KvasirError, ValueError):
    """An argument is wrong; also OUT_OF_RANGE."""


class NotFoundError(KvasirError, LookupError):
    """An unknown id, or no daemon at this path."""


class DeadlineExceededError(KvasirError, TimeoutError):
    """The session's deadline passed."""


class UnavailableError(KvasirError, ConnectionError):
    """The daemon is gone, stopping, or has ended the session: connect anew."""


class ResourceExhaustedError(KvasirError):
    """Memory or a limit; see retry_after_s, budget, missing and holder."""


class FailedPreconditionError(KvasirError):
    """Not in this state; to ask again is of no use."""


class PermissionDeniedError(KvasirError):
    """This user may not."""


class ClosedError(FailedPreconditionError):
    """The session, sequence or step is closed or over, or belongs to the process before a fork."""

    def __init__(self, text: str) -> None:
        super().__init__(Code.FAILED_PRECONDITION, text)


_CLASSES: typing.Dict[Code, typing.Type[KvasirError]] = {
    Code.INVALID_ARGUMENT: InvalidArgumentError,
    Code.OUT_OF_RANGE: InvalidArgumentError,
    Code.NOT_FOUND: NotFoundError,
    Code.DEADLINE_EXCEEDED: DeadlineExceededError,
    Code.UNAVAILABLE: UnavailableError,
    Code.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    Code.FAILED_PRECONDITION: FailedPreconditionError,
    Code.PERMISSION_DENIED: PermissionDeniedError,
    Code.UNAUTHENTICATED: PermissionDeniedError,
}


def make_error(number: int, text: str, shortage: typing.Any) -> KvasirError:
    """The exception of a kvasir_code; `shortage` is a kvasir_shortage or None."""
    code = Code(number) if number in Code._value2member_map_ else Code.UNKNOWN
    kind = _CLASSES.get(code, KvasirError)
    if shortage is None:
        return kind(code, text)
    budget = shortage.budget.decode(errors="replace")
    return kind(code, text, retry_after_s=shortage.retry_after_ms / 1000, budget=budget or None,
                missing=shortage.missing if budget else None,
                holder=shortage.holder.decode(errors="replace") or None)
