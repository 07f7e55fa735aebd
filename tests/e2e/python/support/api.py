"""Assertions on the REST API's common shapes."""

from datetime import UTC, datetime

import httpx


def refused(response: httpx.Response, status: int, message: str | None = None) -> dict:
    """Checks the error body every refusal has, and optionally what its message contains."""
    assert response.status_code == status, (response.status_code, response.text)
    assert response.headers["content-type"].startswith("application/json")
    body = response.json()
    assert type(body["code"]) is int and body["code"] == status, body
    assert isinstance(body["message"], str) and body["message"], body
    if message is not None:
        assert message in body["message"], body
    return body


def exactly(response: httpx.Response, status: int, message: str) -> None:
    """Checks an agent's REST error, which has these two keys and no other."""
    assert response.status_code == status, (response.status_code, response.text)
    assert response.headers["content-type"].startswith("application/json")
    assert response.json() == {"code": status, "message": message}


def rpc_error(response: httpx.Response, status: int, code: str, message: str = "") -> None:
    """Checks a unary Connect error."""
    assert response.status_code == status, (response.status_code, response.text)
    body = response.json()
    assert body["code"] == code, body
    assert message in body.get("message", ""), body


def moment(text: str) -> datetime:
    """Reads a time of the API, which must name its zone."""
    value = datetime.fromisoformat(text.replace("Z", "+00:00"))
    assert value.tzinfo is not None, f"no zone in {text}"
    return value


def left(text: str) -> float:
    """Seconds from now to a time of the API."""
    return (moment(text) - datetime.now(UTC)).total_seconds()
