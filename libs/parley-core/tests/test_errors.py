from urllib.parse import quote

import pytest
from google.rpc import code_pb2, error_details_pb2
from parley_core import errors
from parley_core.errors import (
    Aborted,
    Code,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ParleyError,
    ResourceExhausted,
    Unavailable,
    Unknown,
    from_exception,
    from_status,
    to_status,
)

pytestmark = pytest.mark.unit


def kinds(error: ParleyError) -> set[str]:
    return {detail.TypeName().rsplit(".", 1)[1] for detail in to_status(error).details}


def test_codes_are_those_of_google_rpc():
    assert {code.name: int(code) for code in Code} == dict(code_pb2.Code.items())


@pytest.mark.parametrize("cls", ParleyError.__subclasses__())
def test_every_error_carries_error_info_and_comes_back_as_itself(cls):
    back = from_status(to_status(cls("one sentence", reason="SOME_REASON", metadata={"n": 3})))
    assert type(back) is cls
    assert (back.message, back.reason, back.metadata, back.domain) == (
        "one sentence", "SOME_REASON", {"n": "3"}, "parley.dev",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("error", "detail", "attribute", "value"),
    [
        (InvalidArgument("m", field="a.b"), "BadRequest", "violations", {"a.b": "m"}),
        (
            InvalidArgument("m", violations={"a": "x", "b": "y"}),
            "BadRequest",
            "violations",
            {"a": "x", "b": "y"},
        ),
        (Unavailable("m", retry_after=0.25), "RetryInfo", "retry_after", 0.25),
        (ResourceExhausted("m", quota="tenant:a/s"), "QuotaFailure", "quota", "tenant:a/s"),
        (
            FailedPrecondition("m", precondition="sessions/1"),
            "PreconditionFailure",
            "precondition",
            "sessions/1",
        ),
        (NotFound("m", resource="voices/nobody"), "ResourceInfo", "resource", "voices/nobody"),
    ],
)
def test_each_detail_is_written_only_where_it_applies_and_read_back(
    error, detail, attribute, value
):
    assert kinds(error) == {"ErrorInfo", detail}
    assert getattr(from_status(to_status(error)), attribute) == value


def test_a_reason_is_upper_snake():
    with pytest.raises(ValueError, match="UPPER_SNAKE"):
        InvalidArgument("m", reason="no good")


def test_reason_defaults_to_the_code():
    assert Aborted("lost").reason == "ABORTED"


def test_a_long_error_fits_into_trailers():
    error = InvalidArgument(
        "m" * 100_000, field="f" * 9000, metadata={str(n): "v" * 9000 for n in range(50)}
    )
    # gRPC sends the details as base64 beside the message, within 8 KiB of headers.
    status = to_status(error)
    assert len(status.SerializeToString()) * 4 / 3 + len(status.message) < 8000


def test_a_long_error_in_any_script_fits_into_trailers():
    name = "高" * 9000
    error = NotFound(f"no {name}", resource=f"voices/{name}", metadata={"voice": name})
    status = to_status(error)
    beside = len(quote(status.message))
    assert len(status.SerializeToString()) * 4 / 3 + beside < 8000
    assert status.message.startswith("no 高高")
    assert from_status(status).message == status.message


def test_a_foreign_reason_does_not_break_the_reader():
    status = to_status(Unavailable("m"))
    info = error_details_pb2.ErrorInfo(reason="not ours", domain="example.com")
    status.details[0].Pack(info)
    back = from_status(status)
    assert (back.reason, back.domain) == ("UNAVAILABLE", "example.com")


class FakeCall(Exception):
    def __init__(self, code, details, trailers=()):
        self._code, self._details, self._trailers = code, details, trailers

    def code(self):
        return type("C", (), {"value": (int(self._code), "")})

    def details(self):
        return self._details

    def trailing_metadata(self):
        return self._trailers


def test_a_failed_call_is_read_back_whole():
    status = to_status(ResourceExhausted("m", reason="BUSY", quota="q", retry_after=1.5))
    call = FakeCall(
        Code.RESOURCE_EXHAUSTED, "m", ((errors.STATUS_DETAILS_KEY, status.SerializeToString()),)
    )
    back = errors.from_rpc_error(call)
    assert (type(back), back.reason, back.quota, back.retry_after) == (
        ResourceExhausted, "BUSY", "q", 1.5,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("call", "cls", "reason"),
    [
        (FakeCall(Code.UNAVAILABLE, "connection refused"), Unavailable, "UNREACHABLE"),
        (
            FakeCall(Code.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 4)"),
            ResourceExhausted,
            "MESSAGE_TOO_LARGE",
        ),
        (FakeCall(Code.UNKNOWN, None), Unknown, "UNKNOWN"),
        (FakeCall(Code.ABORTED, "x", ((errors.STATUS_DETAILS_KEY, b"\xff"),)), Aborted, "ABORTED"),
    ],
)
def test_a_call_that_failed_without_details_still_gets_a_reason(call, cls, reason):
    back = errors.from_rpc_error(call)
    assert type(back) is cls
    assert back.reason == reason


def test_a_task_group_does_not_hide_the_typed_error():
    typed = Unavailable("gone", reason="STAGE_LOST")
    group = ExceptionGroup("outer", [ValueError("x"), ExceptionGroup("inner", [typed])])
    assert from_exception(group) is typed


def test_a_failed_call_inside_a_handler_passes_on_with_its_reason():
    status = to_status(NotFound("no such voice", reason="VOICE_UNKNOWN"))
    call = FakeCall(Code.NOT_FOUND, "m", ((errors.STATUS_DETAILS_KEY, status.SerializeToString()),))
    assert from_exception(ExceptionGroup("g", [call])).reason == "VOICE_UNKNOWN"


def test_a_timeout_is_a_deadline_and_a_defect_is_nothing():
    assert isinstance(from_exception(TimeoutError()), DeadlineExceeded)
    assert from_exception(ValueError("x")) is None
