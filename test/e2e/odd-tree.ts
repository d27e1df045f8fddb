// A directory tree with one object of each kind and each oddity, made on the disk by python. The source of tests that
// read real trees: GNU tar packs it, imgfs builds it.
import { python } from "./mounted.js";

const fill = `
import os, stat, sys
os.chdir(sys.argv[1])
def put(name, data=b'x', mode=0o644):
    with open(name, 'wb') as f: f.write(data)
    os.chmod(name, mode)
put('plain', b'text' * 1000); put('empty', b''); put('suid', b's', 0o4755); put('closed', b'c', 0)
put(b'caf\\xe9'); put(b'new\\nline'); put('n' * 255); put('back\\\\slash')
os.mkdir('dir', 0o750); os.makedirs('/'.join(['deep-' * 20] * 9)); put('/'.join(['deep-' * 20] * 9) + '/file')
os.link('plain', 'dir/linked'); os.symlink('x' * 1000, 'long'); os.symlink('dir', 'short')
os.mkfifo('fifo'); os.mknod('null', 0o666 | stat.S_IFCHR, os.makedev(1, 3)); os.mknod('blk', 0o600 | stat.S_IFBLK, os.makedev(7, 300))
put('owned'); os.chown('owned', 4294967294, 3000000)
put('attrs')
try:
    os.setxattr('attrs', 'user.bin', b'\\0\\xff=\\n'); os.setxattr('attrs', 'user.text', b'v' * 900)
except OSError: pass
for name, size in (('sparse', 1 << 22), ('all-hole', 1 << 20)):
    with open(name, 'wb') as f:
        f.truncate(size)
        if name == 'sparse':
            for block in (0, 7, 9, 100, 200, 300, 400, 1023): f.seek(block * 4096); f.write(bytes([block % 251 + 1]) * 4096)
exec(sys.argv[3])
ns = int(sys.argv[2])
for folder, dirs, files in os.walk(b'.', topdown=False):
    for name in files + dirs: os.utime(os.path.join(folder, name), ns=(0, ns), follow_symlinks=False)
for name, seconds in (('empty', -315446215), ('suid', 4294967296), ('closed', 0)): os.utime(name, ns=(0, seconds * 10**9))
os.utime('.', ns=(0, ns))
`;

/** Fills a folder; user xattrs only where the filesystem keeps them. `more` is python that adds to it. */
export async function fillOddTree(folder: string, nanoseconds: string, more = ""): Promise<void> {
  await python(fill, folder, nanoseconds, more);
}
