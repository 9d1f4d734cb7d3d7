"""Turns token ids into text while they arrive, and finds texts that end an answer.

Text is handed out only when later tokens cannot change it: not in the middle of a character of
several bytes, and not while it may be the start of a stop text. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence


class TextStream:
    """The text of one answer while it is written.

    Args:
        decode: turns ids into text, special tokens left out.
        stop: texts that end the answer; none is empty.
        strip: drop white space before the first character (of plain templates).

    Attributes:
        text: handed out so far; after the end, the whole answer.
        stopped: whether a stop text was found.
    """

    def __init__(
        self, decode: Callable[[list[int]], str], stop: Sequence[str] = (), *, strip: bool = False
    ) -> None:
        self._decode, self._stop, self._strip = decode, tuple(stop), strip
        self._ids: list[int] = []
        self._done = 0  # ids whose text is settled
        self._context = 0  # settled ids that are decoded again for the sake of spaces
        self._held = ""
        self.text = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """Add a token; returns the text that is now certain, maybe none."""
        self._ids.append(token)
        return self._release(self._new_text(last=False), last=False)

    def finish(self) -> str:
        """Hand out what was held back."""
        return self._release(self._new_text(last=True), last=True)

    def _new_text(self, *, last: bool) -> str:
        before = self._decode(self._ids[self._context : self._done])
        after = self._decode(self._ids[self._context :])
        if len(after) <= len(before) or (after.endswith("\ufffd") and not last):
            return ""
        self._context, self._done = self._done, len(self._ids)
        return after[len(before) :]

    def _release(self, new: str, *, last: bool) -> str:
        if self.stopped:
            return ""
        self._held += new
        if self._strip and not self.text:
            self._held = self._held.lstrip()
        ends = [at for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if ends:
            self.stopped = True
            keep = min(ends)
        else:
            keep = len(self._held) - (0 if last else self._may_start_stop())
        out, self._held = self._held[:keep], self._held[keep:]
        self.text += out
        return out

    def _may_start_stop(self) -> int:
        """Length of the longest end of the held text that begins a stop text."""
        longest = 0
        for stop in self._stop:
            for size in range(min(len(stop) - 1, len(self._held)), longest, -1):
                if stop.startswith(self._held[-size:]):
                    longest = size
                    break
        return longest
