"""The bytes of an HDF5 file by what they mean, so that a test can plant a damage where it wants to.

Old files (superblock 0, object headers 1, B-trees 1) and new ones (superblock 2 or 3, object headers 2, fractal heaps, B-trees 2). The
new ones carry checksums: they are computed anew after a damage, as whoever makes a file to harm would do it."""
import struct

SUPERBLOCK = b"\x89HDF\r\n\x1a\n"
UNDEFINED = 2**64 - 1
# kinds of messages in an object header
SPACE, LINKS, TYPE, OLD_FILL, FILL, LINK, EXTERNAL, LAYOUT = 1, 2, 3, 4, 5, 6, 7, 8
FILTERS, ATTRIBUTE, CONTINUATION, GROUP, TIME, TREE_SIZES, ATTRIBUTES, FREE_SPACE, CACHE_IMAGE = 11, 12, 16, 17, 18, 19, 21, 23, 24


def rotate(x, k):
    return (x << k | x >> 32 - k) & 0xffffffff


def lookup3(data):
    """Jenkins' hash of 32 bits, as HDF5 has it."""
    length = len(data)
    a = b = c = (0xdeadbeef + length) & 0xffffffff
    padded = bytes(data) + bytes(12)
    at = 0
    while length - at > 12:
        x, y, z = struct.unpack_from("<3I", padded, at)
        a, b, c = (a + x) & 0xffffffff, (b + y) & 0xffffffff, (c + z) & 0xffffffff
        for k in (4, 6, 8, 16, 19, 4):
            a = (a - c & 0xffffffff) ^ rotate(c, k)
            c = (c + b) & 0xffffffff
            a, b, c = b, c, a
        at += 12
    if length == 0:
        return c
    x, y, z = struct.unpack("<3I", bytes(data[at:]) + bytes(12 - (length - at)))
    a, b, c = (a + x) & 0xffffffff, (b + y) & 0xffffffff, (c + z) & 0xffffffff
    for k in (14, 11, 25, 16, 4, 14, 24):
        c = (c ^ b) - rotate(b, k) & 0xffffffff
        a, b, c = b, c, a
    return b  # the last of seven turns wrote it


class Message:
    """One message of an object header: its kind, where it begins, and where and how long its content is."""

    def __init__(self, kind, at, data, size):
        self.kind, self.at, self.data, self.size = kind, at, data, size


class Bytes:
    """A file, and where its objects are (h5py tells that)."""

    def __init__(self, content, places):
        self.bytes, self.places = bytearray(content), dict(places)
        self.sums = []  # (begin, where the checksum is, end): over all but the checksum
        self.is_new = self.bytes[8] >= 2
        if self.is_new:
            self.sums.append((0, 44, 44))
        self.headers = {name: self.read_header(at) for name, at in self.places.items()}
        if self.is_new and self.get(20) != UNDEFINED:
            self.places["superblock"] = self.get(20)
            self.headers["superblock"] = self.read_header(self.get(20))
        for mark, read in ((b"BTHD", self.note_tree), (b"FRHP", self.note_heap), (b"FAHD", self.note_array)):
            for at in self.all(mark):
                read(at)

    def get(self, at, size=8):
        return int.from_bytes(self.bytes[at:at + size], "little")

    def put(self, at, value, size=8):
        self.bytes[at:at + size] = (value % 2**(8 * size)).to_bytes(size, "little")

    def all(self, mark):
        found, at = [], self.bytes.find(mark)
        while at >= 0:
            found.append(at)
            at = self.bytes.find(mark, at + 1)
        return found

    def append(self, content):
        """Bytes behind the file's end, which becomes theirs; where they are."""
        at = len(self.bytes)
        self.bytes += bytes(content) + bytes(-len(content) % 8)
        self.put(28 if self.is_new else 40, len(self.bytes))
        return at

    # ---- object headers ----

    def read_header(self, at):
        if self.bytes[at:at + 4] == b"OHDR":
            flags, here = self.bytes[at + 5], at + 6
            here += (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
            width = 1 << (flags & 3)
            end = here + width + self.get(here, width)
            self.sums.append((at, end, end))
            return self.read_new_messages(here + width, end, flags)
        return self.read_old_messages(at + 16, at + 16 + self.get(at + 8, 4))

    def read_old_messages(self, at, end):
        found = []
        while at + 8 <= end:
            m = Message(self.get(at, 2), at, at + 8, self.get(at + 2, 2))
            found.append(m)
            if m.kind == CONTINUATION:
                begin = self.get(m.data)
                found += self.read_old_messages(begin, begin + self.get(m.data + 8))
            at = m.data + m.size
        return found

    def read_new_messages(self, at, end, flags):
        found, before = [], 6 if flags & 4 else 4
        while at + before <= end:
            m = Message(self.bytes[at], at, at + before, self.get(at + 1, 2))
            found.append(m)
            if m.kind == CONTINUATION:
                begin, length = self.get(m.data), self.get(m.data + 8)
                self.sums.append((begin, begin + length - 4, begin + length - 4))
                found += self.read_new_messages(begin + 4, begin + length - 4, flags)
            at = m.data + m.size
        return found

    def message(self, name, kind, number=0):
        return [m for m in self.headers[name] if m.kind == kind][number]

    def flags_of(self, m):
        """Where the flags of a message are."""
        return m.at + (3 if self.is_new else 4)

    # ---- what else has a checksum ----

    def note_tree(self, at):
        self.sums.append((at, at + 34, at + 34))
        root, records = self.get(at + 16), self.get(at + 24, 2)
        if root != UNDEFINED and self.get(at + 12, 2) == 0:
            end = root + 6 + records * self.get(at + 10, 2)
            self.sums.append((root, end, end))

    def note_heap(self, at):
        self.sums.append((at, at + 142, at + 142))
        block = self.get(at + 132)
        if self.bytes[block:block + 4] == b"FHDB" and self.bytes[at + 9] & 2:
            there = block + 13 + (self.get(at + 128, 2) + 7) // 8
            self.sums.append((block, there, block + self.get(at + 112)))

    def note_array(self, at):
        self.sums.append((at, at + 24, at + 24))

    def sealed(self):
        """The content with right checksums."""
        for begin, there, end in self.sums:
            self.put(there, 0, 4)
            covered = self.bytes[begin:end] if end > there else self.bytes[begin:there]
            self.put(there, lookup3(covered), 4)
        return bytes(self.bytes)
