#!/usr/bin/env python3
"""Eight processes race for the last blocks and the last inode of a quota: races.py MOUNT UPPER ROUNDS SEED

MOUNT has a quota of 64 blocks and 24 inodes, and UPPER nothing in it. In each round a few blocks are left, and all write
at once, in one of the ways below. Then: nothing is past the limit; what was written is there; use is what a count of the
upper finds; who was refused was refused by a full quota; and what is left can still be written.
"""
import errno
import os
import random
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tally import BLOCK, Tally, charged_blocks, told  # noqa: E402

WRITERS = 8
BLOCKS, INODES = 64, 24
FULL = errno.EDQUOT
mount, upper, rounds, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])


def at(name):
    return os.path.join(mount, name)


def written(fd, data, place=None):
    """Bytes written until all are or no more fit."""
    done = 0
    try:
        while done < len(data):
            rest = data[done:]
            done += os.write(fd, rest) if place is None else os.pwrite(fd, rest, place + done)
    except OSError as cause:
        if cause.errno != FULL:
            raise
    return done


class Writer:
    """One process: it has its own file open, and one that all share, to append and to write anywhere."""

    def __init__(self, number):
        self.number = number
        self.own = os.open(at(f"own{number}"), os.O_RDWR)
        self.shared = os.open(at("shared"), os.O_RDWR)
        self.log = os.open(at("log"), os.O_WRONLY | os.O_APPEND)
        self.byte = bytes([65 + number])

    def append(self, length, _place):
        """To a file of its own."""
        return written(self.own, self.byte * length)

    def append_all(self, length, _place):
        """To one file, with O_APPEND."""
        return written(self.log, self.byte * length)

    def overlap(self, length, place):
        """Anywhere in one file, over what the others write."""
        return written(self.shared, self.byte * length, place)

    def scatter(self, length, place):
        """In holes of its own file."""
        return written(self.own, self.byte * length, place * (self.number + 1))

    def churn(self, length, _place):
        """Files that come and go."""
        made = 0
        for i in range(4):
            path = at(f"churn{self.number}")
            try:
                fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            except OSError as cause:
                if cause.errno != FULL:
                    raise
                continue
            made += 1
            written(fd, self.byte * length)
            if i % 2 == 0:
                os.close(fd)
                os.unlink(path)
            else:
                os.unlink(path)
                os.close(fd)
        return made


def serve(number, requests, answers):
    writer = Writer(number)
    os.write(answers, b"ready\n")
    for line in os.fdopen(requests):
        way, length, place = line.split()
        try:
            answer = getattr(writer, way)(int(length), int(place))
        except OSError as cause:
            answer = f"{way}: {cause}"
        if way in ("append", "scatter"):
            os.lseek(writer.own, 0, os.SEEK_SET)
        os.write(answers, f"{answer}\n".encode())
    os._exit(0)


def settled(wanted, what):
    for _ in range(3000):
        if told(mount) == wanted:
            return
        time.sleep(0.001)
    raise SystemExit(f"{what}: told {told(mount)} in place of {wanted}")


def main():
    choose = random.Random(seed)
    names = [f"own{n}" for n in range(WRITERS)]
    for name in (*names, "shared", "log", "fill"):
        open(at(name), "wb").close()
    fill = os.open(at("fill"), os.O_RDWR)
    children = []
    for number in range(WRITERS):
        (requests, ask), (hear, answers) = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(ask)
            for _, others_ask, _ in children:
                os.close(others_ask)
            serve(number, requests, answers)
        os.close(requests)
        os.close(answers)
        children.append((pid, ask, os.fdopen(hear)))
    for _, _, hear in children:
        assert hear.readline() == "ready\n"
    inodes = WRITERS + 3
    empty = (0, inodes)
    wins = dict.fromkeys(("append", "append_all", "overlap", "scatter", "churn"), 0)
    for number in range(rounds):
        way = choose.choice(list(wins))
        left = choose.randrange(1, 12)
        os.ftruncate(fill, 0)
        assert os.pwrite(fill, b"f" * (BLOCKS - left) * BLOCK, 0) == (BLOCKS - left) * BLOCK
        length = choose.choice((1, 100, BLOCK, BLOCK, 2 * BLOCK, 5000))
        for _, ask, _ in children:
            os.write(ask, f"{way} {length} {choose.randrange(20) * BLOCK}\n".encode())
        highest = told(mount) if way == "churn" else (0, 0)
        answers = [hear.readline().strip() for _, _, hear in children]
        title = f"round {number}, seed {seed}: {way} of {length} with {left} blocks left gave {answers}"
        if not all(answer.isdigit() for answer in answers):
            raise SystemExit(title)
        done = [int(answer) for answer in answers]
        wins[way] += sum(done)
        files = {"append": names, "scatter": names, "append_all": ["log"], "overlap": ["shared"], "churn": []}[way]
        used = sum(len(charged_blocks(os.path.join(upper, name))) for name in files)
        settled(((BLOCKS - left + used) * BLOCK, inodes), title)
        if used > left or highest[0] > BLOCKS * BLOCK or highest[1] > INODES:
            raise SystemExit(f"{title}: past the limit")
        refused = way != "churn" and any(each < length for each in done)
        if refused and used != left:
            raise SystemExit(f"{title}: refused with {left - used} blocks left")
        if way == "append":
            for name, each in zip(names, done):
                with open(at(name), "rb") as file:
                    if file.read() != bytes([65 + int(name[3:])]) * each:
                        raise SystemExit(f"{title}: {name} is not what was written")
        elif way == "append_all":
            with open(at("log"), "rb") as file:
                data = file.read()
            counts = [data.count(bytes([65 + n])) for n in range(WRITERS)]
            if counts != done or len(data) != sum(done):
                raise SystemExit(f"{title}: the file has {counts} of {len(data)} bytes")
        # What is left can be written, and no more.
        rest = os.pwrite(fill, b"r" * (left - used) * BLOCK, BLOCKS * BLOCK) if used < left else 0
        if rest != (left - used) * BLOCK:
            raise SystemExit(f"{title}: of {left - used} blocks left {rest} bytes could be written")
        try:
            os.pwrite(fill, b"r", 2 * BLOCKS * BLOCK)
            raise SystemExit(f"{title}: one byte more than there is")
        except OSError as cause:
            assert cause.errno == FULL, cause
        if number % 20 == 0:
            tally = Tally(upper)
            if (tally.bytes, tally.inodes) != (BLOCKS * BLOCK, inodes):
                raise SystemExit(f"{title}: counted {tally.bytes, tally.inodes}")
        for name in (*files, "fill"):
            os.truncate(at(name), 0)
        settled(empty, f"{title}, after truncation")
    for pid, ask, _ in children:
        os.close(ask)
        os.waitpid(pid, 0)
    os.close(fill)
    assert all(wins.values()) or rounds < 50, wins
    print(f"{rounds} rounds, {wins}")


main()
