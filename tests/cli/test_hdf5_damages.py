"""Files with the structural damages that HDF5's published CVEs are about, each planted into a sound data set: exit code 3 and one line
that names the file, soon, in little memory, with nobody left; the process that looks through the file may die, the program may not.

The CVE numbers tell which kind of damage it is; the published files themselves are not here. MDM_CVE_FILES may name a folder of them
(`cvefiles` of HDFGroup/cve_hdf5): then each is looked at too."""
import os
import resource
import time

import h5py
import numpy as np
from hdf5_walk import (ATTRIBUTE, ATTRIBUTES, CACHE_IMAGE, CONTINUATION, EXTERNAL, FILL, FILTERS, FREE_SPACE, GROUP, LAYOUT, LINK, LINKS, SPACE,
                       TIME, TREE_SIZES, TYPE, UNDEFINED, Bytes)
from program import PROGRAM, main, run, train

BOUND, SLACK = 5, 25  # seconds; what a busy machine may add
MEMORY = 540  # MiB that any process of a look may have had
DAMAGES = []
COUNT, SIDE = 40, 8


def damage(*formats, of=None, harmless="", train="", cve=""):
    """`of`: a file of another kind, some of which are refused anyway; here they must be told all the same. `harmless`: why the file is
    read as if it were sound. `train`: the form with which two ranks also begin a
    training."""
    def note(plant):
        for form in formats:
            DAMAGES.append((plant, form, of, 0 if harmless else 3, train == form))
        return plant
    return note


OLD, NEW = "earliest", "latest"


def add_pictures(f, name, count, **how):
    f.create_dataset(name + "/images", data=np.arange(count * SIDE * SIDE, dtype="u1").reshape(count, SIDE, SIDE, 1), **how)
    f[name + "/labels"] = np.arange(count, dtype="i4") % 4


def add_kinds(f):
    """Data sets that no run reads, but that whoever looks through a file meets."""
    inner = np.dtype([("x", "i4"), ("y", "f4")])
    f["kinds/compound"] = np.zeros(4, [("first", inner), ("second", "i2"), ("third", "S5")])
    f["kinds/array"] = np.zeros(4, [("matrix", "i4", (2, 3))])
    f.create_dataset("kinds/enum", data=np.zeros(4, "i1"), dtype=h5py.enum_dtype({"clean": 0, "mislabelled": 1, "stranger": 2}, "i1"))
    f["kinds/type"] = np.dtype("i4")
    f.create_dataset("kinds/named", (4,), dtype=f["kinds/type"])
    lists = f.create_dataset("kinds/lists", (2,), h5py.vlen_dtype("i4"))
    lists[0], lists[1] = [1, 2], [3]
    for i in range(20):
        f[f"many/member{i:02d}"] = np.arange(i + 1)


def add_compact(f, name, values):
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.COMPACT)
    h5py.h5d.create(f.id, name, h5py.h5t.NATIVE_INT32, h5py.h5s.create_simple((len(values),)), layout).write(
        h5py.h5s.ALL, h5py.h5s.ALL, np.array(values, "i4"))


def make(path, form, of):
    """A sound data set with all kinds of structures, and where its objects begin."""
    options = dict(fs_strategy="fsm", fs_persist=True) if form == NEW else {}
    with h5py.File(path, "w", libver=form, **options) as f:
        f.attrs["format"], f.attrs["format_version"] = "mdm-dataset", 1
        f.attrs["made_by"] = np.bytes_("a test")
        for i in range(6):
            f.attrs[f"note{i}"] = "a line"
        if of == "packed":
            add_pictures(f, "train", COUNT, chunks=(10, SIDE, SIDE, 1), compression="gzip", shuffle=True, fletcher32=True, track_times=True)
        elif of == "summed":
            add_pictures(f, "train", COUNT, chunks=(10, SIDE, SIDE, 1), fletcher32=True, track_times=True)
        elif of == "chunked":
            add_pictures(f, "train", COUNT, chunks=(10, SIDE, SIDE, 1), track_times=True)
        else:
            add_pictures(f, "train", COUNT, track_times=True)
        f.create_dataset("train/true_labels", data=np.arange(COUNT, dtype="i4") % 4, chunks=(10,), fillvalue=7)
        f["train/ids"] = [f"picture {i}" for i in range(COUNT)]
        f["class_names"] = ["shirt", "shoe", "bag", "coat"]
        add_pictures(f, "test", 8, chunks=(4, SIDE, SIDE, 1))
        del f["test/labels"]
        add_compact(f, b"test/labels", [0, 1, 2, 3, 0, 1, 2, 3])
        add_kinds(f)
        if of == "external":
            f.create_dataset("kinds/external", (40,), "u1", external=[("elsewhere", 0, 40)])
        if of == "virtual":
            layout = h5py.VirtualLayout((40,), "u1")
            layout[:] = h5py.VirtualSource("elsewhere", "there", (40,))
            f.create_virtual_dataset("kinds/virtual", layout)
        if of == "scaled":
            f.create_dataset("kinds/scaled", data=np.arange(40), chunks=(10,), scaleoffset=4)
        if of == "linked":
            f["kinds/linked"] = h5py.ExternalLink("elsewhere", "/there")
            f["kinds/soft"] = h5py.SoftLink("/there")
        places = {"/": h5py.h5o.get_info(f.id).addr}

        def note(name, item):
            places[name] = h5py.h5o.get_info(item.id).addr
        f.visititems(note)
    with open(path, "rb") as f:
        return Bytes(f.read(), places)


# ---- the superblock ----

@damage(OLD, NEW, cve="a superblock that is read with addresses of another length")
def addresses_of_one_byte(b):
    b.put(9 if b.is_new else 13, 1, 1)


@damage(OLD, NEW)
def lengths_of_eleven_bytes(b):
    b.put(10 if b.is_new else 14, 11, 1)


@damage(OLD, cve="CVE-2018-11202, 11206")
def trees_of_no_width(b):
    b.put(16, 0, 2)


@damage(OLD)
def the_root_group_beyond_the_file(b):
    b.put(64, len(b.bytes) + 4096)


@damage(OLD)
def a_driver_block_amid_the_root_group(b):
    b.put(48, b.places["/"])


@damage(OLD)
def a_driver_block_longer_than_the_file(b):
    there = b.append(b"\0\0\0\0" + (2**31 - 1).to_bytes(4, "little") + b"NCSAmult" + bytes(64))
    b.put(48, there)


@damage(NEW)
def an_extension_that_is_the_superblock(b):
    b.put(20, 0)


@damage(NEW, harmless="only writers look at it", cve="CVE-2025-6816, 2914, 6270: what a file says of its free space")
def free_space_pages_of_no_size(b):
    m = b.message("superblock", FREE_SPACE)
    b.put(m.data + 1, 1, 1)  # paged
    b.put(m.data + 11, 0)


@damage(NEW, harmless="only writers look at it")
def free_space_managers_amid_the_root_group(b):
    m = b.message("superblock", FREE_SPACE)
    b.put(m.data + 3, 2**63)
    for i in range(12):
        b.put(m.data + 29 + 8 * i, b.places["/"])


@damage(NEW, cve="CVE-2025-6269, 6516: an image of the cache")
def an_image_of_the_cache_that_is_no_image(b):
    m = b.message("superblock", FREE_SPACE)
    b.put(m.at, CACHE_IMAGE, 1)
    b.put(m.data, 0, 1)
    b.put(m.data + 1, b.places["/"])
    b.put(m.data + 9, 512)


@damage(NEW, cve="CVE-2025-6269, 6516")
def an_image_of_the_cache_of_four_billion_entries(b):
    m = b.message("superblock", FREE_SPACE)
    image = b.append(b"MDCI\0\0" + (4096).to_bytes(8, "little") + (2**32 - 1).to_bytes(4, "little") + bytes(4096 - 18))
    b.put(m.at, CACHE_IMAGE, 1)
    b.put(m.data, 0, 1)
    b.put(m.data + 1, image)
    b.put(m.data + 9, 4096)


@damage(NEW, harmless="new groups have no such trees")
def tree_sizes_of_nothing(b):
    m = b.message("superblock", FREE_SPACE)
    b.put(m.at, TREE_SIZES, 1)
    b.bytes[m.data:m.data + 7] = bytes(7)


# ---- object headers ----

def continuation(b):
    """A message of the labels' header turned into a continuation; where its content is."""
    m = b.message("train/labels", FILL)
    if m.size < 16:
        m = b.message("train/labels", LAYOUT)
    b.put(m.at, CONTINUATION, 1 if b.is_new else 2)
    return m


@damage(OLD, NEW, train=OLD, cve="CVE-2025-2310, 6818, 2912: chunks of an object header that overlap")
def a_header_that_goes_on_in_itself(b):
    m = continuation(b)
    b.put(m.data, m.at if not b.is_new else b.places["train/labels"])
    b.put(m.data + 8, m.size + 8)


@damage(OLD, cve="CVE-2018-11204, 2025-6817: a header that goes on for ever")
def a_header_that_goes_round(b):
    first = b.append(bytes(24))
    b.put(first, CONTINUATION, 2)
    b.put(first + 2, 16, 2)
    b.put(first + 8, first)
    b.put(first + 16, 24)
    m = continuation(b)
    b.put(m.data, first)
    b.put(m.data + 8, 24)


@damage(OLD, NEW, cve="CVE-2018-13873, 17234, 2019-8397: H5O__chunk_deserialize")
def a_header_that_goes_on_beyond_the_file(b):
    m = continuation(b)
    b.put(m.data, len(b.bytes) - 16)
    b.put(m.data + 8, 4096)


@damage(OLD, NEW, cve="CVE-2018-13873")
def a_header_that_goes_on_in_nothing(b):
    m = continuation(b)
    b.put(m.data, 512)
    b.put(m.data + 8, 0)


@damage(OLD, NEW, cve="CVE-2018-17234: memory for what a header announces")
def a_header_of_two_gibibytes(b):
    m = continuation(b)
    b.put(m.data, 512)
    b.put(m.data + 8, 2**31)


@damage(OLD, NEW, cve="CVE-2018-13873: a message that reaches beyond its header")
def a_message_longer_than_its_header(b):
    m = b.message("train/labels", LAYOUT)
    b.put(m.at + (1 if b.is_new else 2), 0xfff8, 2)


@damage(OLD, harmless="HDF5 goes by the header's length")
def sixty_thousand_messages(b):
    b.put(b.places["train/labels"] + 2, 60000, 2)


@damage(OLD, NEW, harmless="layouts are never shared: HDF5 overlooks it", cve="CVE-2018-17435, 2020-10812: a message that is said to be shared")
def a_shared_layout(b):
    m = b.message("train/labels", LAYOUT)
    b.bytes[b.flags_of(m)] |= 2


@damage(OLD, NEW, train=NEW, cve="CVE-2021-46242: a shared message that leads to itself")
def a_shared_type_that_leads_to_its_own_data_set(b):
    m = b.message("kinds/named", TYPE)
    b.put(m.data + (2 if b.bytes[m.data] > 1 else 8), b.places["kinds/named"])


@damage(OLD, NEW)
def a_shared_type_in_a_heap_that_is_not_there(b):
    m = b.message("kinds/named", TYPE)
    b.put(m.data, 3, 1)
    b.put(m.data + 1, 1, 1)
    b.put(m.data + 2, 0x4141414141414141)


@damage(OLD, NEW, cve="CVE-2016-4332: a message where none of its kind belongs")
def a_time_that_is_a_symbol_table(b):
    m = b.message("train/images", TIME) if not b.is_new else b.message("train/images", FILL)
    b.put(m.at, GROUP, 1 if b.is_new else 2)


@damage(OLD, NEW, cve="CVE-2018-11205: no data set without its type")
def a_header_without_a_type(b):
    m = b.message("train/labels", TYPE)
    b.put(m.at, 0, 1 if b.is_new else 2)


# ---- spaces ----

def dimension(b, name, i=0):
    m = b.message(name, SPACE)
    return m.data + (8 if b.bytes[m.data] == 1 else 4) + 8 * i


@damage(OLD, NEW, cve="CVE-2018-14460, 17439, 2018-17438: H5S_extent_get_dims")
def a_space_of_two_hundred_dimensions(b):
    b.put(b.message("train/labels", SPACE).data + 1, 200, 1)


@damage(OLD, NEW, cve="CVE-2018-14460: H5O_sdspace_decode reads beyond the message")
def a_space_of_more_dimensions_than_its_message_holds(b):
    b.put(b.message("train/labels", SPACE).data + 1, 32, 1)


@damage(OLD, NEW)
def dimensions_whose_product_overflows(b):
    for i, length in enumerate((2**33, 2**31, 2**16, 16)):
        b.put(dimension(b, "train/images", i), length)


@damage(OLD, NEW)
def a_space_without_elements(b):
    b.put(dimension(b, "train/labels"), 0)


@damage(OLD, NEW, cve="CVE-2018-17432: a space without an extent")
def a_space_of_no_kind(b):
    m = b.message("train/labels", SPACE)
    b.put(m.data, 2, 1)
    b.put(m.data + 3, 77, 1)


# ---- types ----

@damage(OLD, NEW, train=NEW, cve="CVE-2018-11203, 17233: divisions by the size of a type")
def numbers_of_no_bytes(b):
    b.put(b.message("train/labels", TYPE).data + 4, 0, 4)


@damage(OLD, NEW)
def numbers_of_four_gibibytes(b):
    b.put(b.message("train/labels", TYPE).data + 4, 2**32 - 1, 4)


@damage(OLD, NEW, cve="CVE-2025-2309, 2024-29163: H5T__bit_copy, H5T__bit_find beyond the number")
def bits_beyond_the_number(b):
    m = b.message("train/labels", TYPE)
    b.put(m.data + 8, 65000, 2)
    b.put(m.data + 10, 65000, 2)


@damage(OLD, NEW)
def numbers_of_no_bits(b):
    b.put(b.message("train/labels", TYPE).data + 10, 0, 2)


@damage(OLD, NEW)
def a_type_of_no_class(b):
    m = b.message("train/labels", TYPE)
    b.bytes[m.data] = b.bytes[m.data] & 0xf0 | 14


@damage(OLD, NEW, cve="CVE-2018-11207, 17437, 2024-32616: H5O_dtype_decode_helper")
def sixty_thousand_members_of_a_compound(b):
    b.put(b.message("kinds/compound", TYPE).data + 1, 60000, 2)


def inner_compound(b):
    """Where the type of the first member of kinds/compound begins, itself a compound."""
    m = b.message("kinds/compound", TYPE)
    version, at = b.bytes[m.data] >> 4, m.data + 8
    if version >= 3:
        return at + len("first") + 1 + 1
    return at + 8 + 4 + (28 if version == 1 else 0)


@damage(OLD, NEW, cve="CVE-2024-33877, 2026-26200: H5T__conv_struct_opt beyond the compound")
def a_member_larger_than_its_compound(b):
    b.put(inner_compound(b) + 4, 4000, 4)


@damage(OLD, NEW, harmless="a data set that no run reads", cve="CVE-2018-13874, 2019-8398: members that overlap")
def members_that_lie_outside(b):
    m = b.message("kinds/compound", TYPE)
    version = b.bytes[m.data] >> 4
    b.put(m.data + 8 + (len("first") + 1 if version >= 3 else 8), 250, 1)


@damage(OLD, NEW, cve="CVE-2019-9152, 2021-46243: H5MM_xstrdup of a name without an end")
def names_of_members_without_an_end(b):
    m = b.message("kinds/compound", TYPE)
    b.bytes[m.data + 8:m.data + m.size] = b"A" * (m.size - 8)


@damage(OLD, NEW, harmless="a data set that no run reads", cve="CVE-2021-46244: H5T__complete_copy divides by a size")
def a_compound_of_no_bytes(b):
    b.put(b.message("kinds/compound", TYPE).data + 4, 0, 4)


def array_type(b):
    """Where the array within kinds/array begins."""
    m = b.message("kinds/array", TYPE)
    at = m.data + 8
    if b.bytes[m.data] >> 4 >= 3:
        return at + len("matrix") + 1 + 1
    return at + 8 + 4 + (28 if b.bytes[m.data] >> 4 == 1 else 0)


@damage(NEW, cve="CVE-2018-11206, 2024-32618: arrays of more dimensions than there can be")
def an_array_of_two_hundred_dimensions(b):
    b.put(array_type(b) + 8, 200, 1)


@damage(NEW, harmless="a data set that no run reads", cve="CVE-2021-46244")
def an_array_of_no_elements(b):
    at = array_type(b) + 9
    b.put(at, 0, 4)
    b.put(at + 4, 0, 4)


@damage(OLD, NEW, harmless="a data set that no run reads", cve="CVE-2018-14031, 2024-32619: H5T_copy of what was never read")
def sixty_thousand_members_of_an_enumeration(b):
    b.put(b.message("kinds/enum", TYPE).data + 1, 60000, 2)


@damage(OLD, NEW)
def an_enumeration_of_wider_numbers_than_it_holds(b):
    b.put(b.message("kinds/enum", TYPE).data + 4, 2**20, 4)


@damage(OLD, NEW, cve="CVE-2024-32610, 32624: lists of a kind that is none")
def lists_of_lists_without_a_base(b):
    m = b.message("kinds/lists", TYPE)
    b.bytes[m.data + 8:m.data + m.size] = b.bytes[m.data:m.data + 8] + bytes(m.size - 16)


# ---- fill values, filters, attributes, external files ----

@damage(OLD, NEW, cve="CVE-2018-13868, 2026-19024: H5O_fill_old_decode, H5Pget_fill_value")
def a_fill_value_longer_than_its_message(b):
    m = b.message("train/true_labels", FILL)
    b.put(m.data + (4 if b.bytes[m.data] < 3 else 2), 2**24, 4)


@damage(OLD, NEW, harmless="all values are there", cve="CVE-2018-13868")
def a_fill_value_longer_than_its_type(b):
    m = b.message("train/true_labels", FILL)
    at = m.data + (4 if b.bytes[m.data] < 3 else 2)
    b.put(at, max(m.data + m.size - at - 4, 5), 4)


@damage(OLD, cve="CVE-2026-19024: a fill value of a negative size")
def a_fill_value_of_less_than_nothing(b):
    b.put(b.message("train/true_labels", FILL).data + 4, -5, 4)


@damage(OLD, NEW, of="packed", cve="CVE-2018-11206, 2016-4331: more filters than there can be")
def two_hundred_filters(b):
    b.put(b.message("train/images", FILTERS).data + 1, 200, 1)


def first_filter(b):
    m = b.message("train/images", FILTERS)
    return m.data + (8 if b.bytes[m.data] == 1 else 2)


def values_of(b, at):
    """Where the number of values of the filter at `at` is."""
    is_short = b.bytes[b.message("train/images", FILTERS).data] > 1 and b.get(at, 2) < 256
    return at + (4 if is_short else 6)


@damage(OLD, NEW, of="packed", cve="CVE-2018-14034, 2016-4333: H5O_pline_decode")
def sixty_thousand_values_of_a_filter(b):
    b.put(values_of(b, first_filter(b)), 60000, 2)


@damage(OLD, of="packed", cve="CVE-2016-4331: the name of a filter")
def a_filter_with_a_name_beyond_its_message(b):
    b.put(first_filter(b) + 2, 0xfff8, 2)


@damage(OLD, NEW, of="scaled", cve="CVE-2016-4330, 2025-44905, 2308: scale and offset of nonsense")
def a_scale_beyond_the_number(b):
    m = b.message("kinds/scaled", FILTERS)
    b.bytes[m.data + m.size - 64:m.data + m.size] = b"\xff" * 64


@damage(OLD, NEW, cve="CVE-2018-17435, 2025-2310: H5O_attr_decode")
def an_attribute_with_a_name_beyond_its_message(b):
    b.put(attribute(b) + 2, 0xffff, 2)


def attribute(b):
    """The first attribute of the root group: in its header, or in the heap of a new file."""
    if not b.is_new:
        return b.message("/", ATTRIBUTE).data
    heap = b.get(b.message("/", ATTRIBUTES).data + 2)
    return b.bytes.find(b"format\0") - 9 if heap != UNDEFINED else b.message("/", ATTRIBUTE).data


@damage(OLD, NEW, cve="CVE-2018-17435")
def an_attribute_without_a_name(b):
    b.put(attribute(b) + 2, 0, 2)


@damage(OLD, NEW, cve="CVE-2024-32607, 32608, 29161: the type of an attribute")
def an_attribute_with_a_type_beyond_its_message(b):
    b.put(attribute(b) + 4, 0xfff0, 2)


@damage(OLD, NEW, cve="CVE-2024-32611: the space of an attribute")
def an_attribute_with_a_space_beyond_its_message(b):
    b.put(attribute(b) + 6, 0xfff0, 2)


@damage(OLD, NEW, of="external", cve="CVE-2018-13875: slots of external files")
def sixty_thousand_external_files(b):
    m = b.message("kinds/external", EXTERNAL)
    b.put(m.data + 4, 60000, 2)
    b.put(m.data + 6, 60000, 2)


@damage(OLD, NEW, of="external")
def an_external_name_beyond_its_heap(b):
    b.put(b.message("kinds/external", EXTERNAL).data + 16, 2**40)


@damage(NEW, of="virtual", cve="CVE-2020-10811: what a layout refers to")
def a_virtual_data_set_whose_sources_are_nowhere(b):
    m = b.message("kinds/virtual", LAYOUT)
    b.put(m.data + 2, len(b.bytes) + 512)


@damage(NEW, of="virtual")
def a_virtual_data_set_of_a_missing_list(b):
    m = b.message("kinds/virtual", LAYOUT)
    b.put(m.data + 10, 60000, 4)


# ---- layouts ----

@damage(OLD, NEW, of="chunked", train=OLD, cve="CVE-2018-11207, 17233, 17237, 2021-45833: divisions by a chunk's length")
def chunks_of_no_length(b):
    at, width = chunk_lengths(b)
    b.put(at, 0, width)


def chunk_lengths(b, name="train/images"):
    """Where the lengths of a chunk are, and how wide each."""
    m = b.message(name, LAYOUT)
    return (m.data + 11, 4) if b.bytes[m.data] == 3 else (m.data + 5, b.bytes[m.data + 4])


@damage(OLD, NEW, of="chunked", cve="CVE-2018-11207")
def chunks_of_the_largest_length(b):
    at, width = chunk_lengths(b)
    for i in range(4):
        b.put(at + i * width, -1, width)


@damage(OLD, NEW, of="chunked", cve="CVE-2021-45833, 2018-17438: a chunk of other dimensions than its data set")
def chunks_of_another_rank(b):
    m = b.message("train/images", LAYOUT)
    b.put(m.data + (2 if b.bytes[m.data] == 3 else 3), 3, 1)


@damage(OLD, NEW, of="chunked", cve="CVE-2021-45833")
def chunks_of_thirty_three_dimensions(b):
    m = b.message("train/images", LAYOUT)
    b.put(m.data + (2 if b.bytes[m.data] == 3 else 3), 34, 1)


@damage(OLD, of="chunked", cve="CVE-2018-17434: another size of the elements in a chunk")
@damage(NEW, of="chunked", harmless="HDF5 takes the size from the type")
def chunks_of_elements_of_no_bytes(b):
    at, width = chunk_lengths(b)
    b.put(at + 4 * width, 0, width)


@damage(NEW, of="chunked")
def chunks_with_an_unknown_index(b):
    at, width = chunk_lengths(b)
    b.put(at + 5 * width, 77, 1)


@damage(OLD, NEW, train=OLD, cve="CVE-2020-10811, 2019-9151, 2018-14033: H5O__layout_decode, H5D__compact_readvv")
def compact_values_longer_than_their_message(b):
    b.put(b.message("test/labels", LAYOUT).data + 2, 0xff00, 2)


@damage(OLD, NEW, cve="CVE-2019-9151: H5VM_memcpyvv from fewer values than the space has")
def compact_values_fewer_than_the_space(b):
    b.put(b.message("test/labels", LAYOUT).data + 2, 4, 2)


@damage(OLD, NEW)
def values_beyond_the_file(b):
    b.put(b.message("train/images", LAYOUT).data + 2, len(b.bytes) - 8)


@damage(OLD, NEW)
def values_at_an_address_that_overflows(b):
    b.put(b.message("train/images", LAYOUT).data + 2, UNDEFINED - 7)


@damage(OLD, NEW, harmless="HDF5 goes by the space, and the values are in the file", cve="CVE-2018-14035: fewer values than the space has")
def values_fewer_than_the_space(b):
    b.put(b.message("train/labels", LAYOUT).data + 10, 8)


# ---- old groups: trees, their leaves, heaps ----

def group_tree(b, name):
    return b.get(b.message(name, GROUP).data)


def group_heap(b, name):
    return b.get(b.message(name, GROUP).data + 8)


def leaf(b, name):
    return b.get(group_tree(b, name) + 32)


@damage(OLD, cve="CVE-2018-11203, 2025-6857, 2018-15671: a tree without an end")
def a_tree_that_is_its_own_child(b):
    tree = group_tree(b, "train")
    b.put(tree + 5, 1, 1)
    b.put(tree + 32, tree)


@damage(OLD, cve="CVE-2018-15671: as many levels as a byte counts")
def a_tree_of_255_levels(b):
    b.put(group_tree(b, "train") + 5, 255, 1)


@damage(OLD, cve="CVE-2018-13869, 2019-8397")
def a_tree_of_sixty_thousand_children(b):
    b.put(group_tree(b, "train") + 6, 60000, 2)


@damage(OLD)
def a_tree_of_chunks_as_a_group(b):
    b.put(group_tree(b, "train") + 4, 1, 1)


@damage(OLD, cve="CVE-2018-13872, 2025-6857: H5G_ent_decode, H5G__node_cmp3")
def a_leaf_of_sixty_thousand_names(b):
    b.put(leaf(b, "train") + 6, 60000, 2)


@damage(OLD, cve="CVE-2025-6857: H5G__node_cmp3")
def names_beyond_the_heap(b):
    at = leaf(b, "train") + 8
    for i in range(b.get(leaf(b, "train") + 6, 2)):
        b.put(at + 40 * i, 2**40 + i)


@damage(OLD, cve="CVE-2025-6857: a name without an end")
def names_at_the_heap_s_end(b):
    heap = group_heap(b, "train")
    b.bytes[b.get(heap + 24):b.get(heap + 24) + b.get(heap + 8)] = b"A" * b.get(heap + 8)
    b.put(heap + 16, 1)


@damage(OLD)
def an_object_that_is_its_own_leaf(b):
    b.put(leaf(b, "train") + 16, leaf(b, "train"))


@damage(OLD, cve="a group that holds itself")
def a_group_within_itself(b):
    at = leaf(b, "many") + 8
    b.put(at + 8, b.places["many"])
    b.put(at + 16, 1, 4)
    b.put(at + 24, group_tree(b, "many"))
    b.put(at + 32, group_heap(b, "many"))


@damage(OLD, cve="CVE-2018-16438, 13870: a link whose value lies outside")
def a_soft_link_beyond_the_heap(b):
    at = leaf(b, "train") + 8
    b.put(at + 8, UNDEFINED)
    b.put(at + 16, 2, 4)
    b.put(at + 24, 2**31, 4)


@damage(OLD, train=OLD, cve="CVE-2024-32612, 32613, 2025-2924: H5HL__fl_deserialize")
def a_free_list_that_leads_to_itself(b):
    heap = group_heap(b, "train")
    data = b.get(heap + 24)
    b.put(heap + 16, 8)
    b.put(data + 8, 8)
    b.put(data + 16, 16)


@damage(OLD, cve="CVE-2025-2924")
def a_free_list_beyond_the_heap(b):
    b.put(group_heap(b, "train") + 16, 2**40)


@damage(OLD, cve="CVE-2025-2924")
def a_free_block_longer_than_the_heap(b):
    heap = group_heap(b, "train")
    b.put(heap + 16, 8)
    b.put(b.get(heap + 24) + 8, 1)
    b.put(b.get(heap + 24) + 16, 2**40)


@damage(OLD)
def a_heap_of_no_bytes(b):
    b.put(group_heap(b, "train") + 8, 0)


@damage(OLD, cve="CVE-2018-13871: memory for what a heap announces")
def a_heap_of_a_tebibyte(b):
    b.put(group_heap(b, "train") + 8, 2**40)


@damage(OLD, cve="CVE-2018-13867, 2025-2915: H5F__accum_read")
def a_heap_beyond_the_file(b):
    b.put(group_heap(b, "train") + 24, 2**60)


@damage(OLD)
def a_heap_that_is_the_tree(b):
    b.put(b.message("train", GROUP).data + 8, group_tree(b, "train"))


# ---- global heaps, where names are kept ----

@damage(OLD, NEW, cve="CVE-2024-29157, 32621: H5HG_read")
def names_in_a_collection_beyond_the_file(b):
    at = b.get(b.message("class_names", LAYOUT).data + 2)
    for i in range(4):
        b.put(at + 16 * i + 4, len(b.bytes) + 4096)


@damage(OLD, NEW, cve="CVE-2024-29162, 32621: H5HG_read of an object that is not there")
def names_that_the_collection_lacks(b):
    at = b.get(b.message("class_names", LAYOUT).data + 2)
    for i in range(4):
        b.put(at + 16 * i + 12, 60000, 4)


@damage(OLD, NEW, cve="CVE-2024-29164, 32617: a length that is not the object's")
def names_longer_than_their_objects(b):
    at = b.get(b.message("class_names", LAYOUT).data + 2)
    for i in range(4):
        b.put(at + 16 * i, 2**31 - 1, 4)


def collection(b):
    return b.get(b.get(b.message("class_names", LAYOUT).data + 2) + 4)


@damage(OLD, NEW, train=NEW, cve="CVE-2024-29160, 2020-10810: H5HG__cache_heap_deserialize")
def objects_longer_than_their_collection(b):
    b.put(collection(b) + 16 + 8, 2**40)


@damage(OLD, NEW, cve="CVE-2024-29160")
def objects_of_the_largest_length(b):
    b.put(collection(b) + 16 + 8, UNDEFINED)


@damage(OLD, NEW)
def a_collection_of_no_bytes(b):
    b.put(collection(b) + 8, 0)


@damage(OLD, NEW, cve="CVE-2024-29158: H5FL_arr_malloc of what a collection announces")
def a_collection_of_a_tebibyte(b):
    b.put(collection(b) + 8, 2**40)


# ---- new groups and attributes: fractal heaps and trees ----

def dense_heap(b):
    return b.get(b.message("many", LINKS).data + 2)


def dense_tree(b):
    return b.get(b.message("many", LINKS).data + 10)


@damage(NEW, cve="CVE-2018-11205, 2021-45830: a heap without columns")
def a_heap_of_no_columns(b):
    b.put(dense_heap(b) + 110, 0, 2)


@damage(NEW, cve="CVE-2021-45830, 2021-45832")
def a_heap_of_sixty_thousand_rows(b):
    b.put(dense_heap(b) + 140, 60000, 2)


@damage(NEW)
def a_heap_of_blocks_of_no_bytes(b):
    b.put(dense_heap(b) + 112, 0)


@damage(NEW)
def a_heap_of_blocks_of_the_largest_size(b):
    b.put(dense_heap(b) + 120, 2**62)


@damage(NEW, harmless="the tree's records have their own length")
def a_heap_of_names_of_no_bytes(b):
    b.put(dense_heap(b) + 5, 0, 2)


@damage(NEW)
def a_heap_whose_block_is_its_header(b):
    b.put(dense_heap(b) + 132, dense_heap(b))


@damage(NEW, cve="CVE-2018-17437: filters of a heap")
def a_heap_with_filters_that_are_none(b):
    b.put(dense_heap(b) + 7, 60000, 2)


@damage(NEW)
def a_tree_of_records_of_no_bytes(b):
    b.put(dense_tree(b) + 10, 0, 2)


@damage(NEW)
def a_tree_of_nodes_of_no_bytes(b):
    b.put(dense_tree(b) + 6, 0, 4)


@damage(NEW)
def a_tree_of_sixty_thousand_records(b):
    b.put(dense_tree(b) + 24, 60000, 2)


@damage(NEW)
def a_new_tree_of_sixty_thousand_levels(b):
    b.put(dense_tree(b) + 12, 60000, 2)


@damage(NEW)
def a_tree_whose_root_is_its_header(b):
    b.put(dense_tree(b) + 16, dense_tree(b))


@damage(NEW)
def a_tree_of_another_kind(b):
    b.put(dense_tree(b) + 5, 11, 1)


@damage(NEW, cve="CVE-2024-29166: H5O__linfo_decode")
def a_group_whose_heap_is_nowhere(b):
    b.put(b.message("many", LINKS).data + 2, 2**50)


def dense_link(b):
    """A link in the heap of a group with many members: where it begins."""
    return b.bytes.find(b"member00") - 3


@damage(NEW, cve="CVE-2018-13870, 2021-45829: H5O_link_decode")
def a_link_with_a_name_beyond_its_heap(b):
    b.put(dense_link(b) + 2, 255, 1)


@damage(NEW, cve="CVE-2018-13869, 13870")
def a_link_of_an_unknown_kind_and_length(b):
    b.put(dense_link(b) + 1, 0xff, 1)


@damage(NEW, cve="CVE-2018-13870: H5O_link_decode")
def a_link_with_a_name_beyond_its_message(b):
    m = b.message("kinds", LINK)
    b.bytes[m.data + 1] = b.bytes[m.data + 1] & 0xfc | 3  # the length of the name takes eight bytes
    b.put(m.data + 2, 2**40)


@damage(NEW, of="linked", cve="CVE-2018-16438: H5L_extern_query")
def a_link_into_another_file_of_no_bytes(b):
    for m in b.headers["kinds"]:
        if m.kind == LINK and b"elsewhere" in b.bytes[m.data:m.data + m.size]:
            at = b.bytes.find(b"elsewhere", m.data) - 3
            b.put(at, 0, 2)


@damage(NEW, of="chunked")
def an_array_of_chunks_without_an_end(b):
    for at in b.all(b"FAHD"):
        b.put(at + 8, 2**60)


@damage(NEW, of="chunked")
def an_array_of_chunks_in_pages_of_no_size(b):
    for at in b.all(b"FAHD"):
        b.put(at + 7, 0, 1)
        b.put(at + 6, 0, 1)


# ---- chunks of pictures: trees, and what filters make of them ----

def chunk_tree(b):
    return b.get(b.message("train/images", LAYOUT).data + 3)


@damage(OLD, of="chunked", cve="CVE-2018-11203")
def a_tree_of_chunks_that_is_its_own_child(b):
    tree = chunk_tree(b)
    b.put(tree + 5, 1, 1)
    for i in range(4):
        b.put(tree + 24 + 48 * (i + 1) + 8 * i, tree)


@damage(OLD, of="summed", train=OLD, cve="CVE-2024-29165: H5Z__filter_fletcher32 of less than its sum")
def chunks_shorter_than_their_sum(b):
    for i in range(4):
        b.put(chunk_tree(b) + 24 + 56 * i, 2, 4)


@damage(OLD, of="summed", cve="CVE-2025-44904, 2024-32605: H5VM_memcpyvv out of a short chunk")
def chunks_without_their_sum_and_of_eight_bytes(b):
    for i in range(4):
        b.put(chunk_tree(b) + 24 + 56 * i, 8, 4)
        b.put(chunk_tree(b) + 24 + 56 * i + 4, 0xffffffff, 4)


@damage(OLD, of="packed", train=OLD, cve="CVE-2025-44904")
def packed_chunks_of_a_few_bytes(b):
    for i in range(4):
        b.put(chunk_tree(b) + 24 + 56 * i, 8, 4)
        b.put(chunk_tree(b) + 24 + 56 * i + 4, 0xffffffff, 4)


@damage(OLD, of="packed")
def packed_chunks_longer_than_the_file(b):
    for i in range(4):
        b.put(chunk_tree(b) + 24 + 56 * i, 2**31 - 1, 4)


@damage(OLD, of="chunked", cve="CVE-2018-13876, 13874: H5FD_sec2_read")
def chunks_beyond_the_file(b):
    for i in range(4):
        b.put(chunk_tree(b) + 24 + 56 * i + 48, 2**40)


# ---- what happens to them ----

def processes_on(path):
    """The processes of the program that were given the file."""
    found = []
    for name in os.listdir("/proc"):
        try:
            words = open(f"/proc/{name}/cmdline", "rb").read() if name.isdigit() else b""
            if path.encode() in words and os.readlink(f"/proc/{name}/exe") == os.path.realpath(PROGRAM):
                found.append(int(name))
        except OSError:
            continue
    return found


def largest():
    """MiB of the largest process so far, of those that have ended."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def ends_well(path, what, code, done, took):
    """The list of what is wrong with an end."""
    lines, name = done.stderr.strip().splitlines(), os.path.basename(path)
    errors = [line for line in lines if line.startswith("error")]
    wrong = []
    if done.returncode != code:
        wrong.append(f"exit code {done.returncode} instead of {code}")
    if code == 3 and (len(errors) != 1 or name not in errors[0]):
        wrong.append("not one line that names the file")
    if took > BOUND + SLACK:
        wrong.append(f"{took:.1f} s")
    if processes_on(path):
        wrong.append("a process is left")
    return [f"{what}: {', '.join(wrong)}: {done.stderr.strip()[-300:]}"] if wrong else []


def plant_all(work, damages, look):
    wrong = []
    for plant, form, of, code, _ in damages:
        planted = make(work.file("sound.h5"), form, of)
        sound = bytes(planted.bytes)
        plant(planted)
        assert planted.bytes != sound, f"{plant.__name__} ({form}) changes nothing"
        path = work.file(f"{plant.__name__}-{form}.h5")
        with open(path, "wb") as f:
            f.write(planted.sealed())
        wrong += look(path, f"{plant.__name__} ({form})", code)
        os.remove(path)
    assert not wrong, "\n" + "\n".join(wrong)


def sound_files_are_read(work):
    """Also with their checksums computed anew: or the damages would be told by these alone."""
    for form in (OLD, NEW):
        for of, code in ((None, 0), ("chunked", 0), ("packed", 0), ("summed", 0), ("external", 3), ("virtual", 3), ("scaled", 3), ("linked", 3)):
            path = work.file(f"sound-{form}-{of}.h5")
            content = make(path, form, of).sealed()
            with open(path, "rb") as f:
                assert f.read() == content, f"{path}: other checksums"
            for command in ("info", "verify"):
                done = run("data", command, path)
                assert done.returncode == code, (path, done.returncode, done.stderr)
    print(f"        the largest process: {largest():.0f} MiB", flush=True)


def damages_are_told_in_one_line(work):
    """Or are none: then the file has the same labels, names and pictures as the sound one (their mean is computed here)."""
    def look(path, what, code):
        begin = time.monotonic()
        done = run("data", "info", "--json", path, errors="replace")
        wrong = ends_well(path, what, code, done, time.monotonic() - begin)
        if code == 0 and done.stdout.replace(path, "") != run("data", "info", "--json", work.file("sound.h5")).stdout.replace(
                work.file("sound.h5"), ""):
            wrong.append(f"{what}: read as {done.stdout}")
        return wrong + ([f"{what}: {largest():.0f} MiB"] if largest() > MEMORY else [])
    plant_all(work, DAMAGES, look)


def damages_end_a_training_of_two_ranks_with_the_same_line(work):
    def look(path, what, code):
        begin = time.monotonic()
        done = train(work, "damaged", f"data.train={path}", ranks=2)
        return ends_well(path, what, 3, done, time.monotonic() - begin)
    plant_all(work, [d for d in DAMAGES if d[4]], look)


def published_files_are_told_in_one_line(work):
    folder = os.environ.get("MDM_CVE_FILES")
    wrong, names = [], sorted(n for n in os.listdir(folder) if not n.endswith(".md")) if folder else []
    for name in names:
        begin = time.monotonic()
        done = run("data", "info", os.path.join(folder, name), errors="replace")
        wrong += ends_well(os.path.join(folder, name), name, 3, done, time.monotonic() - begin)
    print(f"        {len(names)} files", flush=True)
    assert not wrong, "\n" + "\n".join(wrong)


if __name__ == "__main__":
    print(f"{len(DAMAGES)} damages, {len({plant for plant, *_ in DAMAGES})} kinds", flush=True)
    main([sound_files_are_read, damages_are_told_in_one_line, damages_end_a_training_of_two_ranks_with_the_same_line,
          published_files_are_told_in_one_line])
