"""The keeper and its spare: the processes between gotunnel and CMD (see the package's docstring).

Rules:
- Starts in some 30 ms: `python -I -S`, no import beyond those of this file and `sweep.py`.
- Nothing secret in argv, and no "gotunnel" either, so that `pkill -9 -f gotunnel` leaves it to clean
  up: the settings come by the control pipe, the name of this module by an environment variable.
- Control pipe, from gotunnel: a length and the marshalled `Settings`, then messages of ten bytes: kind,
  signal, and the time by time.monotonic_ns.  Its end of file means that gotunnel is dead.
- Report pipe, to gotunnel, lines: `started PID` or `failed STAGE ERRNO PATH`; then `left PID NAME` for
  what could not be killed, and `ended WAITSTATUS`; `crashed WHY` is a bug of this file.  Its end of
  file means that both are gone.
- CMD gets none of our descriptors, gotunnel's first signal mask, and default dispositions, but what
  was ignored when gotunnel started stays ignored (nohup).
- A signal of the group (terminal, `kill -- -PGID`, timeout(1)) reaches gotunnel, keeper and CMD; one to
  gotunnel alone doesn't reach the keeper.  So: pass on what gotunnel got and we did not.
"""

from __future__ import annotations

import errno
import marshal
import os
import select
import signal
import sys
import time

from gotunnel.child.sweep import GRACE, be_subreaper, die_with_parent, kill, state, sweep

TYPE_CHECKING = False  # as in sweep.py
if TYPE_CHECKING:
    from typing import TypedDict

    class Settings(TypedDict):
        """What to start; bytes as the kernel takes them."""

        argv: list[bytes]
        env: dict[bytes, bytes]
        cwd: bytes  # "" is where we are
        gotunnel: int  # its pid
        ignore: list[int]  # signals that CMD ignores
        mask: list[int]  # signals that CMD blocks
        files: int  # soft RLIMIT_NOFILE that CMD gets back, 0 where gotunnel has not raised it


FORWARDED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
    signal.SIGTSTP,
    signal.SIGCONT,
)
TERMINAL = (signal.SIGTTIN, signal.SIGTTOU)  # a job in the background used the terminal
GOT = ord("g")  # gotunnel got this signal: CMD is to have it once
SEND = ord("s")  # send CMD this signal
KILL = ord("k")  # kill everything now
MESSAGE = 10  # bytes

ECHO = 0.025  # seconds in which our copy of a group's signal arrives
STALE = 2.0  # seconds after which a copy that gotunnel didn't speak of is forgotten
TWICE = 0.1  # timeout(1) signals its child and then the group: one to the group swallows the other


def _tell(report: int, line: str) -> None:
    try:
        os.write(report, os.fsencode(line) + b"\n")
    except OSError:
        return  # gotunnel is gone, nobody reads


def _tell_left(report: int, left: list[int]) -> None:
    for pid in left:
        try:
            with open(f"/proc/{pid}/comm") as comm:
                name = comm.read().strip()
        except OSError:
            name = "?"
        _tell(report, f"left {pid} {name}")


def _execute(argv: list[bytes], env: dict[bytes, bytes]) -> OSError:
    """Become CMD, searched in CMD's own PATH as a shell does; returns only the error, with its path."""
    name = argv[0]
    missing = FileNotFoundError(errno.ENOENT, "", name)
    if not name:
        return missing
    paths = [name]
    if b"/" not in name:
        path = env.get(b"PATH", os.fsencode(os.defpath))
        paths = [os.path.join(place or b".", name) for place in path.split(b":")]
        paths = [path for path in paths if not os.path.isdir(path)]
    failure: OSError | None = None
    for path in paths:
        try:
            os.execve(path, argv, env)  # noqa: S606 - no shell is the point
        except OSError as error:
            if os.path.lexists(path):
                failure = failure or OSError(error.errno, "", path)
                if error.errno not in (errno.EACCES, errno.ENOENT):
                    break
    return failure or missing


def _become_cmd(settings: Settings, keeper: int, errors: int) -> None:
    """In the forked child: never returns; what goes wrong is written to `errors`."""
    stage = "cwd"
    try:
        die_with_parent()
        if os.getppid() != keeper:
            os._exit(127)
        if settings["cwd"]:
            os.chdir(settings["cwd"])
        stage = "exec"
        # SIGPIPE and SIGXFSZ are ignored by Python, the TERMINAL ones by `Signals`, SIGCHLD is ours
        for number in (*FORWARDED, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, *TERMINAL):
            signal.signal(number, signal.SIG_IGN if number in settings["ignore"] else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, settings["mask"])
        if settings["files"]:
            import resource

            resource.setrlimit(
                resource.RLIMIT_NOFILE, (settings["files"], resource.getrlimit(resource.RLIMIT_NOFILE)[1])
            )
        error = _execute(settings["argv"], settings["env"])
    except OSError as caught:
        error = caught
    path = error.filename if isinstance(error.filename, bytes) else b""
    os.write(errors, f"failed {stage} {error.errno} ".encode() + path)
    os._exit(127)


def _to_null() -> None:
    """Let go of CMD's standard streams, so that their other ends see CMD's end and not ours."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)


class Keeper:
    """One CMD, from its fork to the end of all that it started."""

    def __init__(self, settings: Settings, control: int, report: int) -> None:
        self._settings, self._control, self._report = settings, control, report
        self._adopts = be_subreaper()
        self._cmd = -1
        self._status: int | None = None  # wait status of CMD
        self._stopped = False  # CMD is, by Ctrl-Z or the like
        self._stopped_at = 0  # when we had gotunnel follow it, in nanoseconds
        self._ending = False  # sweeping: gotunnel may be gone, and its pid another's
        self._copies: list[tuple[int, float]] = []  # signals that reached us, and when
        self._unborn: set[int] = set()  # signals that reached us before CMD existed
        self._settled: dict[int, float] = {}  # when a signal last went to the whole group
        self._wake, wake = os.pipe()
        for end in (self._wake, wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in (*FORWARDED, signal.SIGCHLD):
            signal.signal(number, lambda _number, _frame: None)

    def run(self) -> None:
        """Start CMD, serve until it or gotunnel has ended, then leave nothing behind."""
        errors, theirs = os.pipe()
        # everything is blocked until CMD is forked: what is pending by now, CMD doesn't get
        self._unborn = {number for number in signal.sigpending() if number in FORWARDED}
        keeper = os.getpid()
        self._cmd = os.fork()
        if self._cmd == 0:
            _become_cmd(self._settings, keeper, theirs)
        os.close(theirs)
        _to_null()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (*FORWARDED, signal.SIGCHLD))
        grace = self._serve(errors)
        self._ending = True
        _tell_left(self._report, sweep(self._adopts, grace, self._collect))
        if self._status is not None:
            _tell(self._report, f"ended {self._status}")

    def _serve(self, errors: int) -> float:
        """Until it is time to sweep; returns the grace for it."""
        poll = select.poll()
        for end in (errors, self._control, self._wake):
            poll.register(end, select.POLLIN)
        running = False  # CMD was executed: known before its end is looked at
        while True:
            ready = [end for end, _ in poll.poll()]
            self._hear()
            if self._control in ready:
                message = os.read(self._control, MESSAGE)
                if not message:
                    return GRACE
                kind, number, when = message[0], message[1], int.from_bytes(message[2:], "big")
                if kind == KILL:
                    return 0.0
                if (kind == SEND or self._is_owed(number, when)) and self._status is None:
                    if number == signal.SIGCONT and self._stopped:
                        self._hand_over_terminal()
                    kill(self._cmd, number)
            if not running and errors in ready:
                failure = os.read(errors, 65536)
                _tell(self._report, os.fsdecode(failure) or f"started {self._cmd}")
                if failure:
                    return GRACE
                poll.unregister(errors)
                os.close(errors)
                running = True
            self._collect()
            if running and self._status is not None:
                return GRACE

    def _collect(self) -> bool:
        """Collect the dead, False when no child is left.

        gotunnel stops and goes on with CMD: it is gotunnel that the shell looks at.
        """
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
            except ChildProcessError:
                return False
            if not pid:
                return True
            if pid != self._cmd or self._status is not None:
                continue
            if not os.WIFSTOPPED(status) and not os.WIFCONTINUED(status):
                self._status = status
            self._follow(os.WIFSTOPPED(status))

    def _follow(self, stopped: bool) -> None:
        before, self._stopped = self._stopped, stopped
        if self._ending or not (before or stopped):
            return
        now, gotunnel = time.monotonic(), self._settings["gotunnel"]
        if stopped:
            if state(self._cmd) not in "Tt":
                return  # it goes on already
            self._stopped_at = time.monotonic_ns()
            kill(gotunnel, signal.SIGSTOP)
            return
        # gotunnel slept meanwhile and has still to speak of the signals that came before
        self._copies = [(number, now) for number, _ in self._copies]
        self._copies.append((signal.SIGCONT, now))
        kill(gotunnel, signal.SIGCONT)  # takes back our SIGSTOP, should it come late

    def _hand_over_terminal(self) -> None:
        """`fg` after an interactive shell's `suspend`: our group has the terminal, CMD's wants it."""
        try:
            terminal = os.open("/dev/tty", os.O_RDWR)
        except OSError:
            return
        try:
            if os.tcgetpgrp(terminal) == os.getpgrp():
                os.tcsetpgrp(terminal, os.getpgid(self._cmd))
        except OSError:
            return
        finally:
            os.close(terminal)

    def _hear(self) -> None:
        """Note the signals that reached us."""
        try:
            numbers = os.read(self._wake, 4096)
        except BlockingIOError:
            return
        for number in numbers:
            if number in self._unborn:
                self._unborn.discard(number)
            elif number != signal.SIGCHLD:
                self._copies.append((number, time.monotonic()))

    def _is_owed(self, number: int, when: int) -> bool:
        """Whether CMD is still to have this signal, which gotunnel got no later than `when`."""
        had = self._group_had(number)
        self._collect()
        if self._stopped and number in (signal.SIGTSTP, signal.SIGCONT):
            # copies don't tell, as these two drop each other where they wait: CMD is owed a SIGCONT if
            # somebody woke gotunnel after we had stopped it
            awake = when > self._stopped_at and state(self._settings["gotunnel"]) != "T"
            return number == signal.SIGCONT and awake
        try:
            left = os.getpgid(self._cmd) != os.getpgrp()  # an interactive shell leaves our group
        except OSError:
            return False
        return left or not had

    def _group_had(self, number: int) -> bool:
        """True if this signal went to the whole group, since we got a copy."""
        until = time.monotonic() + ECHO
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        while True:
            self._hear()
            now = time.monotonic()
            if not self._stopped:
                self._copies = [copy for copy in self._copies if now - copy[1] < STALE]
            mine = next((copy for copy in self._copies if copy[0] == number), None)
            if mine:
                self._copies.remove(mine)
                self._settled[number] = now
                return True
            if now - self._settled.get(number, -TWICE) < TWICE:
                return True
            if now >= until:
                return False
            poll.poll(1000 * (until - now))


def main() -> None:
    """Entry of both processes: argv holds the descriptors of the control and the report pipe."""
    control, report = int(sys.argv[1]), int(sys.argv[2])
    for end in (control, report):
        os.set_inheritable(end, False)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would cost us CMD's status
    size = int.from_bytes(_read(control, 4), "big")
    settings: Settings = marshal.loads(_read(control, size))  # noqa: S302 - from gotunnel itself
    adopts = be_subreaper()
    alive, life = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        os.close(alive)
        try:
            Keeper(settings, control, report).run()
        except BaseException as error:
            _tell(report, f"crashed {error!r}")
            os._exit(1)
        os._exit(0)
    os.close(life)
    os.setsid()
    _to_null()
    poll = select.poll()
    poll.register(alive, select.POLLIN)
    poll.register(control, 0)  # hang-up only: what comes by it is the keeper's
    if alive not in [end for end, _ in poll.poll()]:
        kill(keeper, signal.SIGCONT)  # gotunnel died; a stopped keeper could not clean up
        os.read(alive, 1)
    if os.waitpid(keeper, 0)[1] != 0:  # it was killed before it could clean up
        _tell_left(report, sweep(adopts))
    os._exit(0)


def _read(source: int, size: int) -> bytes:
    """Exactly `size` bytes; ends this process where gotunnel died before it sent them."""
    data = b""
    while len(data) < size:
        piece = os.read(source, size - len(data))
        if not piece:
            os._exit(0)
        data += piece
    return data
