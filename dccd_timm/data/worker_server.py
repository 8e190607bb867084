"""The server that forks loader workers imports this before anything else: it leaves the process group of its rank, and
ends with it, however it ends."""

import os
import signal

from dccd_timm.process import STOP_SIGNALS, detach

detach()
PID = os.getpid()  # by which a worker knows that its server lives
# They were blocked while the server still was in the group; what came meanwhile was meant for the rank and is dropped.
_handlers = {number: signal.signal(number, signal.SIG_IGN) for number in STOP_SIGNALS}
signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
for _number, _handler in _handlers.items():
    signal.signal(_number, _handler)
