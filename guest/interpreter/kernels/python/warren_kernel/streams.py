"""Standard output and error in pieces of bounded size, which wait to be sent."""

from ipykernel.iostream import OutStream

# Longest piece in characters, and how much a cell may write ahead.
PIECE = 256 * 1024


class BoundedOutStream(OutStream):
    """Output whose writer waits once much of it is unsent."""

    # A reader may be slow for as long as it likes; a cell that waits can be interrupted.
    flush_timeout = 24 * 3600

    _unsent = 0

    def write(self, string):
        if not isinstance(string, str) or len(string) <= PIECE:
            return self._write(string)
        for start in range(0, len(string), PIECE):
            self._write(string[start : start + PIECE])
        return len(string)

    def _write(self, string):
        written = super().write(string)
        self._unsent += len(string)
        if self._unsent >= PIECE:
            self.flush()
        return written

    def _rotate_buffers(self):
        self._unsent = 0
        return super()._rotate_buffers()
