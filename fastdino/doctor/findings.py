"""What is found out about one kernel."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Finding:
    """One kernel on one device.

    Attributes:
        error: of the kernel against float64, as a multiple of what is allowed: above 1 it is too large. None if there
            was no result.
        seconds, bytes: time of a launch and what any implementation has to move at least, None where nothing was timed.
        fault: the sentence that condemns the kernel, empty if it is sound.
    """

    operation: str
    kernel: str
    error: float | None = None
    seconds: float | None = None
    bytes: int | None = None
    fault: str = ""

    @property
    def bandwidth(self) -> float | None:
        """Bytes a second."""
        return None if self.seconds is None or self.bytes is None else self.bytes / self.seconds
