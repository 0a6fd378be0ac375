"""Damages of the superblock, and of what object headers say: spaces, types, values, filters, attributes, layouts."""
from hdf5_damages import damage, OLD, NEW
from hdf5_walk import (ATTRIBUTE, ATTRIBUTES, CACHE_IMAGE, CONTINUATION, EXTERNAL, FILL, FILTERS, FREE_SPACE, GROUP, LAYOUT, SPACE, TIME,
                       TREE_SIZES, TYPE, UNDEFINED)


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
