"""The Python kernel of code-interpreter sandboxes: ipykernel with rich results and output
that waits for its reader."""
