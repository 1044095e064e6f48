"""Long work whose progress the page follows."""

from __future__ import annotations

import base64
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ..errors import SganError
from .turns import JOB, GaveUp, Turns
from .views import to_rgba

MAX_JOBS = 3
_INTERVAL = 0.05  # seconds between two images


class Canceled(BaseException):
    """Nobody waits for the result any more."""


class Job:
    """One piece of long work in a thread of its own. Its events are conflated: a slow reader gets the newest."""

    def __init__(
        self,
        turns: Turns,
        changed: Callable[[], None],  # called from the thread after each event
    ):
        self._turns, self._changed = turns, changed
        self._lock = threading.Lock()
        self._event: dict[str, Any] | None = None
        self._shown = 0.0  # when the last image was made
        self.canceled = self.stopped = self.finished = False

    def run(self, work: Callable[[Job], dict[str, Any]]) -> None:
        """Do the work, and report its result or what went wrong."""
        try:
            with self._turns.take(JOB, lambda: self.canceled):
                self.check()
                self._put({"result": work(self)})
        except (Canceled, GaveUp):
            pass
        except KeyboardInterrupt:
            self._put({"error": "Stopped before there was a result.", "hint": None})
        except SganError as e:
            self._put({"error": str(e), "hint": e.hint})
        except Exception as e:  # the page has to know, whatever it is
            traceback.print_exc()
            self._put({"error": f"Unexpected error: {type(e).__name__}: {e}", "hint": None})
        finally:
            self.finished = True
            self._changed()

    def report(
        self,
        what: str,
        done: int,
        total: int,
        more: Mapping[str, Any] | None = None,  # further fields of the event
        can_stop: bool = True,  # whether there is something to keep
    ) -> None:
        """Report progress; let those go first who wait for an image. Raises Canceled, or KeyboardInterrupt to stop."""
        name, _, figure = what.partition(", ")
        self._put({"what": name, "done": done, "total": total, "figure": figure or None, **(more or {})})
        self._turns.pass_on()
        self.check(can_stop)

    def check(self, can_stop: bool = True) -> None:
        if self.canceled:
            raise Canceled
        if self.stopped and can_stop:
            self.stopped = False
            raise KeyboardInterrupt

    def wants_image(self) -> bool:
        """Whether it is time for another image: the reader has taken the last one, and not just now."""
        with self._lock:
            waiting = self._event is not None and "image" in self._event
        if waiting or time.monotonic() - self._shown < _INTERVAL:
            return False
        self._shown = time.monotonic()
        return True

    def cancel(self) -> None:
        """End the work as soon as it reports, or does not even begin."""
        self.canceled = True
        self._turns.wake()

    def take(self) -> dict[str, Any] | None:
        """The newest event that has not been taken."""
        with self._lock:
            event, self._event = self._event, None
        return event

    def _put(self, event: dict[str, Any]) -> None:
        with self._lock:
            if self._event and "image" in self._event and "what" in event:
                event = {"image": self._event["image"], **event}
            self._event = event
        self._changed()


def frame_of(
    image: Tensor,  # uint8 [C, H, W]
) -> dict[str, Any]:
    """An image within JSON."""
    height, width = image.shape[1:]
    return {"width": width, "height": height, "data": base64.b64encode(to_rgba(image[None])).decode()}
