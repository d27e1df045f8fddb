"""File handles of a mount: handles.py take MOUNT PATH... prints one line each, handles.py open MOUNT LINE... what each leads to.

Between the two the kernel may have dropped its caches, or the mount may be another one of the same image.
"""
import ctypes
import errno
import os
import sys

libc = ctypes.CDLL(None, use_errno=True)


class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_char * 128)]


def take(mount, path):
    handle, mount_id = Handle(bytes=128), ctypes.c_int()
    name = os.fsencode(os.path.join(mount, path))
    if libc.name_to_handle_at(-100, name, ctypes.byref(handle), ctypes.byref(mount_id), 0) != 0:
        raise OSError(ctypes.get_errno(), "name_to_handle_at", path)
    data = ctypes.string_at(ctypes.addressof(handle) + 8, handle.bytes)
    return f"{handle.type}:{data.hex()}"


def open_handle(directory, line):
    kind, data = line.split(":")
    data = bytes.fromhex(data)
    handle = Handle(bytes=len(data), type=int(kind))
    ctypes.memmove(ctypes.addressof(handle) + 8, data, len(data))
    fd = libc.open_by_handle_at(directory, ctypes.byref(handle), os.O_PATH)
    if fd < 0:
        return errno.errorcode[ctypes.get_errno()]
    try:
        return str(os.fstat(fd).st_ino)
    finally:
        os.close(fd)


what, mount, *rest = sys.argv[1:]
if what == "take":
    for path in rest:
        print(take(mount, path))
else:
    directory = os.open(mount, os.O_RDONLY)
    for line in rest:
        print(open_handle(directory, line))
