"""Where the server under test is, as the runner exports it."""

import os

import httpx

API_URL = os.environ.get("E2B_API_URL", "http://127.0.0.1:3000").rstrip("/")
SANDBOX_URL = os.environ.get("E2B_SANDBOX_URL", API_URL).rstrip("/")
API_KEY = os.environ.get("E2B_API_KEY", "")
ENVD_PORT = 49983

BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"


def optional(name: str) -> str | None:
    """The variable's value, or None when it is unset or empty."""
    return os.environ.get(name) or None


def client(base_url: str, **kwargs) -> httpx.Client:
    """An HTTP client that never goes through a proxy of the environment.

    It asks for no compression unless a test does, so that bytes are what the server sent.
    """
    headers = {"accept-encoding": "identity", **kwargs.pop("headers", {})}
    kwargs.setdefault("timeout", 30)
    return httpx.Client(base_url=base_url, headers=headers, trust_env=False, **kwargs)


def host_of(port: int, sandbox_id: str, domain: str = "warren.example") -> str:
    """The host name under which a sandbox's port is reached."""
    return f"{port}-{sandbox_id}.{domain}"
