/* The pickles of CIFAR's archives, written by hand: every way in which Python writes numbers, lists and names
 * is read, and every other use of an instruction is refused with its place. */
#include "golden.h"
#include "pickle.h"
#include <stdlib.h>
#include <string.h>

#define BYTES(text) text, sizeof(text) - 1

/* In memory of that very size, so that a sanitizer sees a read beyond it. */
static mdm_status read_copy(const char *text, size_t size, uint8_t **copy, mdm_pickle **pickle) {
    *copy = malloc(size ? size : 1);
    assert_non_null(*copy);
    memcpy(*copy, text, size);
    return mdm_pickle_read(*copy, size, "batch", pickle);
}

static void assert_list(const mdm_pickle *p, const char *key, int count, const int64_t *expected) {
    size_t length;
    int64_t number;
    assert_int_equal(mdm_pickle_list(p, key), count);
    for (int i = 0; i < count; i++) {
        assert_true(mdm_pickle_number(p, key, i, &number));
        assert_int_equal(number, expected[i]);
        assert_null(mdm_pickle_text(p, key, i, &length));
    }
    assert_false(mdm_pickle_number(p, key, count, &number));
}

static void numbers_of_every_width_are_read(void **state) {
    (void)state;
    uint8_t *copy;
    mdm_pickle *p;
    const int64_t expected[8] = {-1, 257, 0, 1, 0, 258, -2, -32768};
    assert_int_equal(
        read_copy(BYTES("\x80\x02}(U\x01n](\x8a\x01\xff\x8a\x02\x01\x01\x8a\x00\x88\x89M\x02\x01J"
                        "\xfe\xff\xff\xff\x8a\x02\x00\x80"
                        "eU\x01oNu."),
                  &copy, &p),
        MDM_OK);
    assert_list(p, "n", 8, expected);
    assert_int_equal(mdm_pickle_list(p, "o"), -1);
    assert_int_equal(mdm_pickle_list(p, "missing"), -1);
    mdm_pickle_free(p);
    free(copy);
}

static void lists_that_grow_item_by_item_are_read(void **state) {
    (void)state;
    uint8_t *copy;
    mdm_pickle *p;
    const int64_t first[2] = {5, 6}, second[1] = {7};
    assert_int_equal(read_copy(BYTES("\x80\x02}U\x01x]K\x05"
                                     "aK\x06"
                                     "asU\x01y]K\x07"
                                     "as."),
                               &copy, &p),
                     MDM_OK);
    assert_list(p, "x", 2, first);
    assert_list(p, "y", 1, second);
    mdm_pickle_free(p);
    free(copy);
}

static void texts_with_lengths_of_every_width_are_read(void **state) {
    (void)state;
    static const char *const expected[6] = {"a", "bc", "d", "e", "f", "g"};
    uint8_t *copy;
    mdm_pickle *p;
    size_t length;
    assert_int_equal(read_copy(BYTES("\x80\x04}\x8c\x01t](U\x01"
                                     "aC\x02"
                                     "bcT\x01\x00\x00\x00"
                                     "dX\x01\x00\x00\x00"
                                     "e\x8d\x01\x00\x00\x00\x00\x00\x00\x00"
                                     "f\x8e\x01\x00\x00\x00\x00\x00\x00\x00"
                                     "ges."),
                               &copy, &p),
                     MDM_OK);
    for (int i = 0; i < 6; i++) {
        const char *text = mdm_pickle_text(p, "t", i, &length);
        assert_int_equal(length, strlen(expected[i]));
        assert_memory_equal(text, expected[i], length);
    }
    mdm_pickle_free(p);
    free(copy);
}

static void a_stack_without_end_is_refused(void **state) {
    (void)state;
    enum { DEEP = (1 << 23) + 1 }; /* each step remembers the same dictionary once more */
    mdm_pickle *p;
    const size_t size = 3 + 2 * (size_t)DEEP;
    uint8_t *bytes = malloc(size);
    assert_non_null(bytes);
    memcpy(bytes, "}q\0", 3);
    for (size_t i = 0; i < DEEP; i++) memcpy(bytes + 3 + 2 * i, "h\0", 2);
    assert_int_equal(mdm_pickle_read(bytes, size, "batch", &p), MDM_INPUT);
    assert_non_null(strstr(mdm_last_message(), "a pickle of more than 8388608 values is refused"));
    free(bytes);
}

static void names_of_numpy_are_only_names(void **state) {
    (void)state;
    uint8_t *copy;
    mdm_pickle *p;
    int64_t rows, columns;
    assert_int_equal(read_copy(BYTES("\x80\x04}\x8c\x01k\x8c\x05numpy\x8c\x05"
                                     "dtype\x93s\x8c\x01lcnumpy\nndarray\ns."),
                               &copy, &p),
                     MDM_OK);
    assert_int_equal(mdm_pickle_list(p, "k"), -1);
    assert_null(mdm_pickle_array(p, "k", &rows, &columns));
    assert_null(mdm_pickle_array(p, "l", &rows, &columns));
    mdm_pickle_free(p);
    free(copy);
}

static void every_other_use_of_an_instruction_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
        const char *words;
    } cases[] = {
        {BYTES(""), "it was cut short"},
        {BYTES("U\x05"
               "ab"),
         "it was cut short"},
        {BYTES("cos"), "it was cut short"},
        {BYTES("X\xff\xff\xff\xff"), "an impossible length"},
        {BYTES("\x80\x01"), "an unknown protocol"},
        {BYTES("\xff"), "an instruction that CIFAR's files do not have"},
        {BYTES("N."), "its value is no dictionary"},
        {BYTES("."), "a value is missing"},
        {BYTES("(."), "a value is missing"},
        {BYTES("\x8a\x09"), "a number is too large"},
        {BYTES("e"), "a mark is missing"},
        {BYTES("(e"), "a list is missing"},
        {BYTES("N(e"), "items of nothing"},
        {BYTES("}(Nu"), "items of nothing"},
        {BYTES("]q\x00(h\x00"
               "e"),
         "a list inside itself"},
        {BYTES("\x85"), "a value is missing"},
        {BYTES("(\x85"), "a value is missing"},
        {BYTES("a"), "a value is missing"},
        {BYTES("NNa"), "items of nothing"},
        {BYTES("q\x00"), "nothing to remember"},
        {BYTES("h\x00"), "nothing was remembered there"},
        {BYTES("(q\x00h\x00"), "nothing was remembered there"},
        {BYTES("R"), "a value is missing"},
        {BYTES("NNR"), "a call of nothing"},
        {BYTES("N)b"), "a state of nothing"},
        {BYTES("cos\nsystem\n"), "names a Python object"},
        {BYTES("\x8c\x02os\x8c\x06system\x93"), "names a Python object"},
        {BYTES("K\x01K\x01\x93"), "a name is no text"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t *copy;
        mdm_pickle *p;
        assert_int_equal(read_copy(cases[i].bytes, cases[i].size, &copy, &p), MDM_INPUT);
        assert_null(p);
        if (!strstr(mdm_last_message(), cases[i].words) || !strstr(mdm_last_message(), "batch, byte "))
            fail_msg("case %zu, \"%s\" is not in: %s", i, cases[i].words, mdm_last_message());
        free(copy);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(numbers_of_every_width_are_read),
                                       cmocka_unit_test(lists_that_grow_item_by_item_are_read),
                                       cmocka_unit_test(texts_with_lengths_of_every_width_are_read),
                                       cmocka_unit_test(a_stack_without_end_is_refused),
                                       cmocka_unit_test(names_of_numpy_are_only_names),
                                       cmocka_unit_test(every_other_use_of_an_instruction_is_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
