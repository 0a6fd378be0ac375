/* Folders, files and Python for the tests of the run folder. */
#include "report_test.h"

#include <dirent.h>
#include <fcntl.h>

int make_test_folder(void **state) {
    char path[] = "/tmp/mdm-report-XXXXXX";
    if (!mkdtemp(path)) return -1;
    *state = strdup(path);
    return *state ? 0 : -1;
}

static void remove_tree(const char *path) {
    DIR *entries = opendir(path);
    if (entries) {
        for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
            char inner[1024];
            struct stat kind;
            if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
            snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name);
            if (lstat(inner, &kind) == 0 && S_ISDIR(kind.st_mode))
                remove_tree(inner);
            else
                unlink(inner);
        }
        closedir(entries);
    }
    rmdir(path);
}

int remove_test_folder(void **state) {
    mdm_log_set_warning_hook(NULL, NULL);
    remove_tree(*state);
    free(*state);
    return 0;
}

const char *in_folder(void **state, const char *name) {
    static char paths[8][512];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", (const char *)*state, name);
    return path;
}

char *read_bytes(const char *path, size_t *bytes) {
    char *content = NULL;
    size_t size = 0;
    if (mdm_read_file(path, 1u << 30, &content, &size) != MDM_OK) fail_msg("%s", mdm_last_message());
    if (bytes) *bytes = size;
    return content;
}

void write_bytes(const char *path, const void *content, size_t bytes) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(content, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

void flip_bit(const char *path, size_t byte, int bit) {
    uint8_t value;
    int file = open(path, O_RDWR);
    assert_true(file >= 0 && pread(file, &value, 1, (off_t)byte) == 1);
    value ^= (uint8_t)(1 << bit);
    assert_int_equal(pwrite(file, &value, 1, (off_t)byte), 1);
    assert_int_equal(close(file), 0);
}

int exists(const char *path) {
    struct stat kind;
    return lstat(path, &kind) == 0;
}

int count_entries(const char *folder) {
    int count = 0;
    DIR *entries = opendir(folder);
    assert_non_null(entries);
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(entries);
    return count;
}

void python_check(const char *check, const char *path) {
    enum { MISSING = 77, NOT_FOUND = 127 };
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        execl(MDM_PYTHON, MDM_PYTHON, MDM_CHECK_FILES, check, path, (char *)NULL);
        _exit(NOT_FOUND);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == MISSING || WEXITSTATUS(status) == NOT_FOUND) {
        print_message("skipped the check by Python: python3, numpy or h5py is not installed\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void count_one(void *context, const char *text) {
    assert_true(strlen(text) > 10);
    ++*(int *)context;
}

void count_warnings(int *count) {
    *count = 0;
    mdm_log_set_warning_hook(count_one, count);
}

const char *mount_small_disk(void **state, long bytes) {
    char options[64];
    const char *path = in_folder(state, "small");
    snprintf(options, sizeof options, "size=%ld", bytes);
    assert_int_equal(mkdir(path, 0700), 0);
    if (mount("tmpfs", path, "tmpfs", 0, options) == 0) return path;
    rmdir(path);
    return NULL;
}

void unmount_small_disk(const char *path) {
    assert_int_equal(umount2(path, MNT_DETACH), 0);
    assert_int_equal(rmdir(path), 0);
}
