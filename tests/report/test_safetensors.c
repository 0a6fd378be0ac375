/* safetensors: what is written is read back, by others too; what strangers wrote is read or refused, never
 * followed. */
#include "mdm/report/safetensors.h"

#include "report_test.h"

#include <math.h>

static void write_sample(const char *path) {
    static float weight[6], mean[3] = {1.5f, -0.0f, 3e38f}, one = 42;
    for (int i = 0; i < 6; i++) weight[i] = (float)i * 0.5f - 1;
    const mdm_safetensors_entry entries[] = {{"encoder.conv1.weight", 3, {2, 3, 1}, weight},
                                             {"bn.running_mean", 1, {3}, mean},
                                             {"scalar", 0, {0}, &one},
                                             {"nothing", 2, {0, 4}, NULL}};
    const mdm_safetensors_note notes[] = {{"format", "pt"}, {"network", "a \"quoted\" \xC3\xBC"}};
    assert_int_equal(mdm_safetensors_write(path, entries, 4, notes, 2), MDM_OK);
}

static void a_weights_file_round_trips(void **state) {
    const char *path = in_folder(state, "w.safetensors");
    mdm_safetensors *f = NULL;
    int64_t shape[MDM_SAFETENSORS_MAX_RANK];
    float weight[6], mean[3], one;
    write_sample(path);
    assert_int_equal(mdm_safetensors_open(path, &f), MDM_OK);
    assert_int_equal(mdm_safetensors_count(f), 4);
    assert_string_equal(mdm_safetensors_name(f, 1), "bn.running_mean");
    assert_int_equal(mdm_safetensors_find(f, "encoder.conv1.weight"), 0);
    assert_int_equal(mdm_safetensors_find(f, "encoder"), -1);
    assert_int_equal(mdm_safetensors_shape(f, 0, shape), 3);
    assert_int_equal(shape[1], 3);
    assert_int_equal(mdm_safetensors_read(f, 0, 6, 1, weight), MDM_OK);
    for (int i = 0; i < 6; i++) assert_true(weight[i] == (float)i * 0.5f - 1);
    assert_int_equal(mdm_safetensors_read(f, 1, 3, 1, mean), MDM_OK);
    assert_true(mean[0] == 1.5f && mean[1] == 0 && signbit(mean[1]) && mean[2] == 3e38f);
    assert_int_equal(mdm_safetensors_read(f, mdm_safetensors_find(f, "scalar"), 1, 1, &one), MDM_OK);
    assert_true(one == 42);
    assert_int_equal(mdm_safetensors_read(f, mdm_safetensors_find(f, "nothing"), 0, 1, NULL), MDM_OK);
    assert_int_equal(mdm_safetensors_elements(f, mdm_safetensors_find(f, "nothing")), 0);
    assert_int_equal(mdm_safetensors_read(f, 0, 5, 1, weight), MDM_INPUT);
    assert_string_equal(mdm_safetensors_note_value(f, "format"), "pt");
    assert_null(mdm_safetensors_note_value(f, "none"));
    mdm_safetensors_close(f);
    assert_int_equal(count_entries(*state), 1);
    python_check("safetensors", path);
}

static void doubled_and_reserved_names_are_refused(void **state) {
    float x = 0;
    const char *path = in_folder(state, "w.safetensors");
    const mdm_safetensors_entry twice[] = {{"a", 0, {0}, &x}, {"b", 0, {0}, &x}, {"a", 0, {0}, &x}};
    const mdm_safetensors_entry reserved[] = {{"__metadata__", 0, {0}, &x}};
    assert_int_equal(mdm_safetensors_write(path, twice, 3, NULL, 0), MDM_USAGE);
    assert_int_equal(mdm_safetensors_write(path, reserved, 1, NULL, 0), MDM_USAGE);
    assert_int_equal(exists(path), 0);
}

static void write_raw(const char *path, const char *header, uint64_t claimed, const void *data,
                      size_t data_bytes) {
    mdm_text text = {0};
    mdm_text_add_bytes(&text, (const char *)&claimed, 8);
    mdm_text_add_bytes(&text, header, strlen(header));
    mdm_text_add_bytes(&text, data, data_bytes);
    write_bytes(path, text.data, text.length);
    free(text.data);
}

static void hostile_headers_are_refused(void **state) {
    static const char *const headers[] = {
        "",
        "[]",
        "{",
        "{}x",
        "null",
        " {}",
        "{\"a\":1}",
        "{\"a\":{}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"a\":{\"dtype\":\"F32\",\"shape\":["
        "2],\"data_offsets\":[0,8]}}",
        "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
        "{\"a\":{\"dtype\":\"F33\",\"shape\":[2],\"data_offsets\":[0,8]}}",
        "{\"a\":{\"dtype\":7,\"shape\":[2],\"data_offsets\":[0,8]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[-1,-2],\"data_offsets\":[0,8]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,8]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[\"0\",\"8\"]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", /* bytes left over */
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", /* a gap */
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"F32\",\"shape\":["
        "1],\"data_offsets\":[4,8]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"F32\",\"shape\":["
        "2],\"data_offsets\":[0,8]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", /* product
                                                                                                   2^64 */
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387906],\"data_offsets\":[0,8]}}", /* times 4: 8 */
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,8]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,9223372036854775807]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[9223372036854775800,9223372036854775807]}"
        "}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}",
        "{\"a\\u0000b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
        "{\"\xff\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
        "{\"__metadata__\":{\"a\":1},\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
        "{\"__metadata__\":[],\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
    };
    const float data[2] = {1, 2};
    const char *path = in_folder(state, "hostile.safetensors");
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        mdm_safetensors *f = NULL;
        write_raw(path, headers[i], strlen(headers[i]), data, sizeof data);
        if (mdm_safetensors_open(path, &f) != MDM_INPUT) fail_msg("accepted: %s", headers[i]);
        assert_null(f);
        assert_non_null(strstr(mdm_last_message(), path));
    }
}

static void wrong_header_lengths_are_refused(void **state) {
    static const uint64_t claims[] = {
        0, 1, 60, 80, 1 << 20, 17 << 20, (uint64_t)1 << 62, INT64_MAX, UINT64_MAX - 7, UINT64_MAX};
    const char *header = "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}";
    const float data[2] = {1, 2};
    const char *path = in_folder(state, "hostile.safetensors");
    mdm_safetensors *f = NULL;
    for (size_t i = 0; i < sizeof claims / sizeof *claims; i++) {
        write_raw(path, header, claims[i], data, sizeof data);
        assert_int_equal(mdm_safetensors_open(path, &f), MDM_INPUT);
    }
    write_raw(path, header, strlen(header), data, sizeof data);
    assert_int_equal(mdm_safetensors_open(path, &f), MDM_OK);
    mdm_safetensors_close(f);
    assert_int_equal(mdm_safetensors_open(in_folder(state, "none"), &f), MDM_INPUT);
    assert_int_equal(mdm_safetensors_open(*state, &f), MDM_INPUT);
    assert_int_equal(mkfifo(in_folder(state, "pipe"), 0600), 0);
    assert_int_equal(mdm_safetensors_open(in_folder(state, "pipe"), &f), MDM_INPUT);
}

static void deep_and_crowded_headers_are_refused(void **state) {
    const char *path = in_folder(state, "hostile.safetensors");
    mdm_safetensors *f = NULL;
    mdm_text text = {0};
    mdm_text_add(&text, "{\"a\":");
    for (int i = 0; i < 100000; i++) mdm_text_add_bytes(&text, "[", 1);
    write_raw(path, text.data, text.length, NULL, 0);
    assert_int_equal(mdm_safetensors_open(path, &f), MDM_INPUT);
    text.length = 0;
    mdm_text_add(&text, "{\"a\":[1");
    for (int i = 0; i < 3000000; i++) mdm_text_add_bytes(&text, ",1", 2);
    mdm_text_add(&text, "]}");
    write_raw(path, text.data, text.length, NULL, 0);
    assert_int_equal(mdm_safetensors_open(path, &f), MDM_INPUT);
    assert_non_null(strstr(mdm_last_message(), "too many"));
    free(text.data);
}

static void open_and_read_all(const char *path) {
    mdm_safetensors *f = NULL;
    float out[16];
    mdm_status status = mdm_safetensors_open(path, &f);
    assert_true(status == MDM_OK || status == MDM_INPUT);
    if (status != MDM_OK) return;
    for (int64_t i = 0; i < mdm_safetensors_count(f); i++) {
        int64_t n = mdm_safetensors_elements(f, i);
        assert_true(n >= 0 && n <= 16);
        status = mdm_safetensors_read(f, i, n, 1, out);
        assert_true(status == MDM_OK || status == MDM_INPUT);
    }
    mdm_safetensors_close(f);
}

static void every_truncation_is_refused_and_no_flip_does_harm(void **state) {
    const char *path = in_folder(state, "w.safetensors"), *bad = in_folder(state, "bad.safetensors");
    size_t bytes;
    mdm_safetensors *f = NULL;
    write_sample(path);
    char *content = read_bytes(path, &bytes);
    write_bytes(bad, content, bytes);
    for (size_t i = 0; i < bytes; i++)
        for (int bit = 0; bit < 8; bit++) {
            flip_bit(bad, i, bit);
            open_and_read_all(bad);
            flip_bit(bad, i, bit);
        }
    for (size_t n = bytes; n-- > 0;) {
        assert_int_equal(truncate(bad, (off_t)n), 0);
        assert_int_equal(mdm_safetensors_open(bad, &f), MDM_INPUT);
    }
    free(content);
}

static void a_file_cut_while_open_is_an_input_error(void **state) {
    const char *path = in_folder(state, "w.safetensors");
    mdm_safetensors *f = NULL;
    float weight[6];
    write_sample(path);
    assert_int_equal(mdm_safetensors_open(path, &f), MDM_OK);
    assert_int_equal(truncate(path, 100), 0);
    assert_int_equal(mdm_safetensors_read(f, 0, 6, 1, weight), MDM_INPUT);
    mdm_safetensors_close(f);
}

static void numbers_that_are_not_finite_are_refused_when_asked(void **state) {
    const char *path = in_folder(state, "w.safetensors");
    float bad[2] = {1, INFINITY}, out[2];
    const mdm_safetensors_entry entry = {"a", 1, {2}, bad};
    mdm_safetensors *f = NULL;
    assert_int_equal(mdm_safetensors_write(path, &entry, 1, NULL, 0), MDM_OK);
    assert_int_equal(mdm_safetensors_open(path, &f), MDM_OK);
    assert_int_equal(mdm_safetensors_read(f, 0, 2, 0, out), MDM_OK);
    assert_int_equal(mdm_safetensors_read(f, 0, 2, 1, out), MDM_INPUT);
    mdm_safetensors_close(f);
}

static void other_float_types_become_floats_and_integers_are_refused(void **state) {
    static uint16_t halves[65536];
    static float half[65536], bfloat[65536];
    const double wide[3] = {1.0 / 3.0, -1e300, 5e-324};
    const int64_t integer = 7;
    float narrow[3];
    const char *path = in_folder(state, "types.safetensors"), *out = in_folder(state, "floats.safetensors");
    mdm_text data = {0};
    mdm_safetensors *f = NULL;
    for (int i = 0; i < 65536; i++) halves[i] = (uint16_t)i;
    mdm_text_add_bytes(&data, (const char *)halves, sizeof halves);
    mdm_text_add_bytes(&data, (const char *)halves, sizeof halves);
    mdm_text_add_bytes(&data, (const char *)wide, sizeof wide);
    mdm_text_add_bytes(&data, (const char *)&integer, sizeof integer);
    const char *header = "{\"n\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[262168,262176]},"
                         "\"half\":{\"dtype\":\"F16\",\"shape\":[65536],\"data_offsets\":[0,131072]},"
                         "\"bfloat\":{\"dtype\":\"BF16\",\"shape\":[65536],\"data_offsets\":[131072,262144]},"
                         "\"double\":{\"dtype\":\"F64\",\"shape\":[3],\"data_offsets\":[262144,262168]}}";
    write_raw(path, header, strlen(header), data.data, data.length);
    free(data.data);
    assert_int_equal(mdm_safetensors_open(path, &f), MDM_OK);
    assert_int_equal(mdm_safetensors_read(f, mdm_safetensors_find(f, "half"), 65536, 0, half), MDM_OK);
    assert_int_equal(mdm_safetensors_read(f, mdm_safetensors_find(f, "bfloat"), 65536, 0, bfloat), MDM_OK);
    assert_int_equal(mdm_safetensors_read(f, mdm_safetensors_find(f, "double"), 3, 0, narrow), MDM_OK);
    assert_int_equal(mdm_safetensors_read(f, mdm_safetensors_find(f, "n"), 1, 0, narrow), MDM_INPUT);
    mdm_safetensors_close(f);
    assert_true(half[0x3C00] == 1 && half[0x7BFF] == 65504 && half[1] == ldexpf(1, -24) &&
                isinf(half[0xFC00]));
    const mdm_safetensors_entry entries[] = {
        {"half", 1, {65536}, half}, {"bfloat", 1, {65536}, bfloat}, {"double", 1, {3}, narrow}};
    assert_int_equal(mdm_safetensors_write(out, entries, 3, NULL, 0), MDM_OK);
    python_check("halves", out);
}

static void without_room_the_old_file_stays(void **state) {
    const char *path = in_folder(state, "w.safetensors");
    static float large[10000];
    const mdm_safetensors_entry entry = {"large", 1, {10000}, large};
    struct rlimit limit, small;
    mdm_safetensors *f = NULL;
    write_sample(path);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    small = limit;
    small.rlim_cur = 8192;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_int_equal(mdm_safetensors_write(path, &entry, 1, NULL, 0), MDM_RESOURCE);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_non_null(strstr(mdm_last_message(), path));
    assert_int_equal(mdm_safetensors_open(path, &f), MDM_OK);
    assert_int_equal(mdm_safetensors_count(f), 4);
    mdm_safetensors_close(f);
    assert_int_equal(count_entries(*state), 1);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_test_folder, remove_test_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_FOLDER(a_weights_file_round_trips),
        IN_FOLDER(doubled_and_reserved_names_are_refused),
        IN_FOLDER(hostile_headers_are_refused),
        IN_FOLDER(wrong_header_lengths_are_refused),
        IN_FOLDER(deep_and_crowded_headers_are_refused),
        IN_FOLDER(every_truncation_is_refused_and_no_flip_does_harm),
        IN_FOLDER(a_file_cut_while_open_is_an_input_error),
        IN_FOLDER(numbers_that_are_not_finite_are_refused_when_asked),
        IN_FOLDER(other_float_types_become_floats_and_integers_are_refused),
        IN_FOLDER(without_room_the_old_file_stays),
    };
    signal(SIGXFSZ, SIG_IGN);
    return cmocka_run_group_tests_name("safetensors", tests, NULL, NULL);
}
