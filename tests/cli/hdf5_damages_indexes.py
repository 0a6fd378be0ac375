"""Damages of what is found by trees and heaps: groups, names, attributes, chunks of pictures."""
import zlib

from hdf5_damages import NEW, OLD, SIDE, damage
from hdf5_walk import GROUP, LAYOUT, LINK, LINKS, UNDEFINED

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


# ---- the same in pictures of more than 256 MiB, whose chunks are looked at when they are read ----

def another_chunk(b, pictures, side, number=2):
    """A chunk of the packed ones becomes another."""
    packed = zlib.compress(bytes(pictures * side * side))
    key = chunk_tree(b) + 24 + 56 * number
    b.put(key, len(packed), 4)
    b.put(key + 48, b.append(packed))


@damage(OLD, of="large", cve="CVE-2025-44904")
def large_chunks_of_a_few_bytes(b):
    packed_chunks_of_a_few_bytes(b)


@damage(OLD, of="large")
def large_chunks_of_other_bytes(b):
    b.put(b.get(chunk_tree(b) + 24 + 56 * 2 + 48) + 20, 2**63 - 1)


@damage(OLD, of="large", train=OLD)
def a_large_chunk_that_unpacks_to_less(b):
    another_chunk(b, 1, 512)


@damage(OLD, of="large")
def a_large_chunk_that_unpacks_to_more(b):
    another_chunk(b, 21, 512)


@damage(OLD, of="packed")
def a_chunk_that_unpacks_to_more(b):
    another_chunk(b, 11, SIDE)
