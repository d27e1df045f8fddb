"""flock(2), fcntl(2) locks of processes and of open file descriptions."""
import fcntl
import os
import threading

from kit import *

SETLK, GETLK, SETLKW = fcntl.F_SETLK, fcntl.F_GETLK, fcntl.F_SETLKW
READ, WRITE, FREE = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
BUSY = (EAGAIN, EACCES)
TRY = fcntl.LOCK_NB


@case
def flock_excludes_and_shares():
    put("f")
    yield
    with opened("f", os.O_RDONLY) as one, opened("f", os.O_RDWR) as two:
        fcntl.flock(one, fcntl.LOCK_EX)
        refused(BUSY, fcntl.flock, two, fcntl.LOCK_SH | TRY)
        refused(BUSY, fcntl.flock, two, fcntl.LOCK_EX | TRY)
        fcntl.flock(one, fcntl.LOCK_SH)
        fcntl.flock(two, fcntl.LOCK_SH | TRY)
        refused(BUSY, fcntl.flock, two, fcntl.LOCK_EX | TRY)
        fcntl.flock(one, fcntl.LOCK_UN)
        fcntl.flock(two, fcntl.LOCK_EX | TRY)


@case
def flock_is_of_the_file_not_the_name():
    put("a")
    os.link("a", "b")
    yield
    with opened("a", os.O_RDWR) as one, opened("b", os.O_RDWR) as two:
        fcntl.flock(one, fcntl.LOCK_EX)
        refused(BUSY, fcntl.flock, two, fcntl.LOCK_EX | TRY)
        os.rename("b", "c")
        with opened("c", os.O_RDONLY) as three:
            refused(BUSY, fcntl.flock, three, fcntl.LOCK_SH | TRY)


@case
def flock_survives_a_change_of_the_file():
    """A descriptor from before holds its lock against one from after."""
    put("f", b"x")
    yield
    with opened("f", os.O_RDONLY) as early:
        fcntl.flock(early, fcntl.LOCK_EX)
        os.chmod("f", 0o600)
        with opened("f", os.O_RDWR) as late:
            os.write(late, b"y")
            refused(BUSY, fcntl.flock, late, fcntl.LOCK_EX | TRY)


@case
def flock_is_inherited_and_ends_with_the_last_close():
    put("f")
    yield
    with opened("f", os.O_RDWR) as other:
        fd = os.open("f", os.O_RDWR)
        fcntl.flock(fd, fcntl.LOCK_EX)
        copy = os.dup(fd)
        os.close(fd)
        refused(BUSY, fcntl.flock, other, fcntl.LOCK_EX | TRY)
        os.close(copy)
        fcntl.flock(other, fcntl.LOCK_EX | TRY)


@case
def flock_waits():
    put("f")
    yield
    with opened("f", os.O_RDWR) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)
        got = []

        def waits():
            with opened("f", os.O_RDWR) as other:
                fcntl.flock(other, fcntl.LOCK_EX)
                got.append(True)

        thread = threading.Thread(target=waits)
        thread.start()
        tick()
        same(got, [])
        fcntl.flock(fd, fcntl.LOCK_UN)
        thread.join(20)
        same(got, [True])


@case
def fcntl_locks_exclude_other_processes():
    put("f", b"0123456789")
    yield
    with opened("f", os.O_RDWR) as fd:
        lock(fd, SETLK, WRITE, 2, 4)

        def other():
            with opened("f", os.O_RDWR) as mine:
                for start, length in ((2, 1), (5, 1), (0, 3), (0, 0), (5, 100)):
                    refused(BUSY, lock, mine, SETLK, READ, start, length)
                lock(mine, SETLK, WRITE, 0, 2)
                lock(mine, SETLK, WRITE, 6, 0)
                same(lock(mine, GETLK, WRITE, 3, 1), (WRITE, 2, 4, os.getppid()))

        in_child(other)
        lock(fd, SETLK, FREE, 0, 0)
        in_child(lambda: lock(os.open("f", os.O_RDWR), SETLK, WRITE, 2, 4))


@case
def fcntl_locks_share_for_reading():
    put("f", b"x")
    yield
    with opened("f", os.O_RDWR) as fd:
        lock(fd, SETLK, READ)

        def other():
            with opened("f", os.O_RDWR) as mine:
                lock(mine, SETLK, READ)
                refused(BUSY, lock, mine, SETLK, WRITE)

        in_child(other)


@case
def fcntl_locks_end_with_any_close():
    """Of any descriptor of the file, by the process that has the lock."""
    put("f", b"x")
    yield
    with opened("f", os.O_RDWR) as fd:
        lock(fd, SETLK, WRITE)
        os.close(os.open("f", os.O_RDONLY))
        in_child(lambda: lock(os.open("f", os.O_RDWR), SETLK, WRITE))


@case
def fcntl_locks_need_the_right_open():
    put("f", b"x")
    yield
    with opened("f", os.O_RDONLY) as fd:
        refused(EBADF, lock, fd, SETLK, WRITE)
        lock(fd, SETLK, READ)
    with opened("f", os.O_WRONLY) as fd:
        refused(EBADF, lock, fd, SETLK, READ)
        lock(fd, SETLK, WRITE)
        refused(EINVAL, lock, fd, SETLK, 9)


@case
def fcntl_locks_find_a_deadlock():
    put("f", b"01")
    yield
    ready, go = os.pipe(), os.pipe()
    with opened("f", os.O_RDWR) as fd:
        lock(fd, SETLK, WRITE, 0, 1)
        pid = os.fork()
        if pid == 0:
            mine = os.open("f", os.O_RDWR)
            lock(mine, SETLK, WRITE, 1, 1)
            os.write(ready[1], b"x")
            try:
                lock(mine, SETLKW, WRITE, 0, 1)
            except OSError:
                os._exit(7)
            os._exit(0)
        os.read(ready[0], 1)
        tick()
        tick()
        try:
            lock(fd, SETLKW, WRITE, 1, 1)
            here = False
        except OSError as cause:
            same(cause.errno, EDEADLK)
            here = True
            lock(fd, SETLK, FREE, 0, 1)
        there = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        true(here != there, "one of the two is told")
    for fd in (*ready, *go):
        os.close(fd)


@case
def ofd_locks_are_of_the_open_file():
    put("f", b"x")
    yield
    with opened("f", os.O_RDWR) as one, opened("f", os.O_RDWR) as two:
        lock(one, F_OFD_SETLK, WRITE, 0, 10)
        refused(BUSY, lock, two, F_OFD_SETLK, WRITE, 5, 1)
        same(lock(two, F_OFD_GETLK, WRITE, 5, 1)[0], WRITE)
        os.close(os.open("f", os.O_RDONLY))
        refused(BUSY, lock, two, F_OFD_SETLK, READ, 0, 1)
        lock(two, F_OFD_SETLK, WRITE, 10, 1)
        lock(one, F_OFD_SETLK, FREE, 0, 0)
        lock(two, F_OFD_SETLK, WRITE, 0, 10)


@case
def ofd_and_process_locks_exclude_each_other():
    put("f", b"x")
    yield
    with opened("f", os.O_RDWR) as one, opened("f", os.O_RDWR) as two:
        lock(one, F_OFD_SETLK, WRITE)
        refused(BUSY, lock, two, SETLK, WRITE)


@case
def locks_of_a_removed_file():
    put("f", b"x")
    yield
    with opened("f", os.O_RDWR) as one, opened("f", os.O_RDWR) as two:
        os.unlink("f")
        fcntl.flock(one, fcntl.LOCK_EX)
        refused(BUSY, fcntl.flock, two, fcntl.LOCK_EX | TRY)
        put("f")
        with opened("f", os.O_RDWR) as other:
            fcntl.flock(other, fcntl.LOCK_EX | TRY)


@case
def locks_of_directories():
    folder("d")
    yield
    with opened("d", os.O_RDONLY) as one, opened("d", os.O_RDONLY) as two:
        fcntl.flock(one, fcntl.LOCK_EX)
        refused(BUSY, fcntl.flock, two, fcntl.LOCK_SH | TRY)
