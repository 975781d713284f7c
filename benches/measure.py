"""Runs one command and writes down its time, its processor time and its memory, all of its child processes included.

Usage: measure.py RESULT TIMEOUT COMMAND…   (environment and working directory are inherited)

Small on purpose: a child's peak memory begins with what its parent had when it was started (about 9 MB for this script).
"""

import os
import signal
import sys
import threading
import time


def tree(pid):
    """The process and all below it that live now."""
    found, queue = [], [pid]
    while queue:
        one = queue.pop()
        found.append(one)
        try:
            for task in os.listdir("/proc/%d/task" % one):
                with open("/proc/%d/task/%s/children" % (one, task)) as children:
                    queue += [int(child) for child in children.read().split()]
        except (OSError, ValueError):
            pass
    return found


def resident(pid):
    """Bytes of memory that no file backs: pages of the program itself would count once per process."""
    try:
        with open("/proc/%d/statm" % pid) as statm:
            fields = statm.read().split()
        return (int(fields[1]) - int(fields[2])) * 4096
    except (OSError, ValueError, IndexError):
        return 0


def main():
    result, timeout, command = sys.argv[1], float(sys.argv[2]), sys.argv[3:]
    done, together, late = threading.Event(), [0], []
    begin = time.monotonic()
    pid = os.posix_spawnp(command[0], command, os.environ)

    def watch():
        while not done.wait(0.05):
            together[0] = max(together[0], sum(resident(one) for one in tree(pid)))
            if time.monotonic() - begin > timeout and not late:
                late.append(True)
                for one in tree(pid):
                    try:
                        os.kill(one, signal.SIGKILL)
                    except ProcessLookupError:
                        pass

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    _, status, usage = os.wait4(pid, 0)
    wall = time.monotonic() - begin
    done.set()
    watcher.join()
    code = "timeout" if late else os.waitstatus_to_exitcode(status)
    with open(result, "w") as out:
        out.write('{"wall": %f, "cpu": %f, "peak": %d, "together": %d, "code": "%s"}\n'
                  % (wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, together[0], code))


if __name__ == "__main__":
    main()
