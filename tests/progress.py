"""Is the time left that a command's progress line tells true to a third?

    python3 tests/progress.py COMMAND...

runs a command with standard error on a terminal of its own, notes when each progress line came, and
how much processor time the command had taken by then, and says of how many lines the time left was
off by more than a third of what it turned out to be (and by more than two seconds, which is
rounding). Counted once by the clock and once by processor time, which other programs on the machine
do not change; and for each part of the work the share that it was said to be and the share that it
was, how many of its lines were off by processor time, and at what per cent the first and the last of
them. Ends with status 1 where more than one line in twenty is off by processor time.
"""
import os
import pty
import re
import sys
import time

TIME = rb"((?:\d+ h )?\d+ (?:min|s))"
LINE = re.compile(rb"\r\x1b\[K +(\d+)%  (.*?)  " + TIME + rb"(?:, about " + TIME + rb" left)?")
UNITS = {b"h": 3600, b"min": 60, b"s": 1}
TICKS = os.sysconf("SC_CLK_TCK")


def processor_time(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def seconds(told):
    """Of "12 s", "34 min", "5 h 6 min"; None of no time."""
    words = told.split() if told else []
    return sum(int(n) * UNITS[unit] for n, unit in zip(words[::2], words[1::2])) if words else None


def record(command):
    """[(seconds, processor seconds, per cent, part, spent, left)] of the lines; the end; the status."""
    master, slave = pty.openpty()
    begun, lines, rest, used = time.monotonic(), [], b"", 0.0
    pid = os.fork()
    if not pid:
        os.dup2(slave, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.execvp(command[0], command)
    os.close(slave)
    while True:
        try:
            got = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        now, used, rest = time.monotonic() - begun, processor_time(pid), rest + got
        matches = list(LINE.finditer(rest))
        for m in matches:
            lines.append((now, used, int(m[1]), m[2].decode(), seconds(m[3]), seconds(m[4])))
        rest = rest[matches[-1].end():] if matches else rest
    _, status, usage = os.wait4(pid, 0)
    return lines, time.monotonic() - begun, usage.ru_utime + usage.ru_stime, status


def off(left, true):
    return abs(left - true) > max(true / 3, 2)


def main():
    lines, end, used, status = record(sys.argv[1:])
    if status or not lines:
        sys.exit(f"the command ended with status {status} and {len(lines)} lines")
    told = [x for x in lines if x[5] is not None]
    by_clock = sum(off(left, end - now) for now, _, _, _, _, left in told)
    parts, by_work = [], 0  # name, processor seconds and per cent at its begin, per cent of lines off
    for _, cpu, percent, name, spent, left in lines:
        if not parts or parts[-1][0] != name:
            parts.append((name, cpu, percent, []))
        share = max(spent, .5) / max(spent + (left or 0), 1)
        if left is not None and off(cpu * (1 - share) / share, used - cpu):
            parts[-1][3].append(percent)
            by_work += 1
    for (name, cpu, percent, wrong), after in zip(parts, parts[1:] + [("", used, 100, [])]):
        where = f", at {wrong[0]} to {wrong[-1]} %" if wrong else ""
        print(f"{name:22s} {after[2] - percent:3d} % said, {100 * (after[1] - cpu) / used:5.1f} % were; "
              f"{len(wrong)} lines off{where}")
    print(f"{len(told)} lines with a time left, {end:.1f} s, {used:.1f} s of processor time: "
          f"off by more than a third: {by_clock} by the clock, {by_work} by processor time")
    sys.exit(20 * by_work > len(told))


if __name__ == "__main__":
    main()
