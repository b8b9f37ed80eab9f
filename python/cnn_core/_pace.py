"""How many threads make steps fastest, found while they are made."""

from __future__ import annotations

TRIAL_SHARE = 0.01  # of the time, at most, goes to trials
FASTER = 0.95  # times the seconds of a step, at most, decide for the other number


class Pace:
    """Seconds of steps that are always alike, and the number of threads for the next ones.

    More threads are slower where cores are far apart, or busy with something else, and steps are
    short. So some steps are made with half or twice as many threads now and then, and if they
    were faster than those before and behind them, all that follow. What is computed does not
    depend on it, to the last bit.

    Attributes
    ----------
    threads : the number found so far, 0 before the first step.
    """

    def __init__(self) -> None:
        self.threads = 0
        self._trial = 0  # the number that is being tried, or 0
        self._tried: tuple[int, float] | None = None  # what the next call is compared with
        self._upwards = False
        self._seconds: tuple[float, float] | None = None  # of a step, in the last two calls
        self._spent = self._due = 0.0  # seconds of all steps, now and when a trial is next

    def choose(self, most: int) -> int:
        """The number of threads for the next call of `note`, at most so many."""
        self.threads = min(self.threads or most, most)
        self._trial = 0
        waiting = self._seconds is None or self._tried is not None
        if most > 1 and not waiting and self._spent >= self._due:
            self._upwards = self.threads < most and (self._upwards or self.threads == 1)
            self._trial = min(2 * self.threads, most) if self._upwards else self.threads // 2
        return self._trial or self.threads

    def note(self, steps: int, seconds: float) -> None:
        """So many steps took so long with the number of threads that was chosen."""
        each = seconds / steps
        self._spent += seconds
        if self._trial or self._seconds is None:
            self._due = self._spent + seconds / TRIAL_SHARE
        if self._trial:
            self._tried = self._trial, each
            return
        last = self._seconds[1] if self._seconds is not None else each
        if self._seconds is not None and self._tried is not None:
            # Slow steps before the trial alone, the first of all for instance, decide nothing.
            threads, tried = self._tried
            if tried < FASTER * min(*self._seconds, each):
                self.threads, last, each = threads, tried, tried
            else:
                self._upwards = not self._upwards
            self._tried = None
        self._seconds = last, each
