"""Exec wrapper: arms the death of this process with its parent's, then becomes the given program.

    python -IS guard.py PARENT_PID PROGRAM ARGS...

`PR_SET_PDEATHSIG` is set in the child itself, because code run between fork and exec in a threaded parent can deadlock.
The parent is checked afterwards: it may have died before. Run as a file, so it imports nothing of ours.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(0)
    os.execv(sys.argv[2], sys.argv[2:])

__all__ = ()
