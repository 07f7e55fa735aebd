"""Starting the reporting HTTP server inside a sandbox."""

from pathlib import Path

from e2b import Sandbox

SOURCE = Path(__file__).with_name("guest_server.py").read_text()
#: Waits inside the sandbox, where a port that opens is seen at once.
WAIT = (
    "for i in $(seq 100); do curl -so /dev/null localhost:{port}/ && exit; sleep .05; done; exit 1"
)


def serve(sandbox: Sandbox, port: int) -> None:
    """Starts the server and returns when it answers."""
    sandbox.files.write("/tmp/guest_server.py", SOURCE)
    sandbox.commands.run(f"python3 /tmp/guest_server.py {port}", background=True, timeout=0)
    sandbox.commands.run(WAIT.format(port=port))
