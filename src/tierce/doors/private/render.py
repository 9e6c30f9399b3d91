"""What the private door's answers look like. What they carry is for nodes, so nothing is labelled."""

from tierce.core import codec
from tierce.doors.shared.answers import Answer, lines
from tierce.node.http_transport import BLOB_SIZE_HEADER, Refusal


def message(body: bytes) -> Answer:
    """The service's answer, whole."""
    return Answer(200, body)


def refusal(status: int, error: str, message: str, hint: str) -> Answer:
    """An error, under the name that the other node knows it by."""
    return Answer(status, codec.encode(Refusal(error, message, hint)))


def blob_head(size: int, length: int) -> Answer:
    """The head of ``length`` bytes out of a blob of ``size``; the bytes follow."""
    return Answer(200, block=lines([(BLOB_SIZE_HEADER, str(size))]), length=length)
