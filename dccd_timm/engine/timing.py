"""How long a training takes, as people read it."""

import time

# Updates at whose end the expected time is known; those before the first of them start workers and compile.
_FIRST, _LAST = 5, 20


def readable_seconds(seconds: float) -> str:
    """A time in the two largest units that it has: ``45 s``, ``12 min``, ``3 h 05 min``, ``2 d 04 h``."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 10:
        minutes = round(seconds / 60)
    hours, minutes_left = divmod(minutes, 60)
    days, hours_left = divmod(hours, 24)
    if days:
        return f"{days} d {hours_left:02d} h"
    if hours:
        return f"{hours} h {minutes_left:02d} min"
    if minutes >= 10:
        return f"{minutes} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


class Forecast:
    """The expected time of a training, from its first updates in this process."""

    def __init__(self) -> None:
        self.updates, self.began = 0, 0.0

    def after_update(self, left: int) -> str | None:
        """Count an update after which so many are ``left``; once, a line about these."""
        self.updates += 1
        if self.updates == _FIRST:
            self.began = time.perf_counter()
        if self.updates != _LAST or not left:
            return None
        seconds = (time.perf_counter() - self.began) / (_LAST - _FIRST) * left
        return f"about {readable_seconds(seconds)} for the other {left} updates, without validation"
