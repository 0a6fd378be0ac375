/* Refusals, messages and round trips of configurations. */
#include "config_test.h"
#include <stdlib.h>
#include <string.h>

mdm_status read_text(mdm_config *config, const char *yaml) {
    return mdm_config_read_text(config, yaml, strlen(yaml), "some/test.yaml");
}

void assert_message_has(const char *part) {
    const char *message = mdm_last_message();
    if (strstr(message, part) == NULL) fail_msg("'%s' is not in '%s'", part, message);
    assert_null(strchr(message, '\n'));
}

void assert_refused(const char *yaml, const char *part) {
    static mdm_config config, before;
    mdm_config_defaults(&config);
    before = config;
    mdm_status status = read_text(&config, yaml);
    if (status != MDM_USAGE) fail_msg("status %d for: %.200s", status, yaml);
    assert_message_has(part);
    assert_memory_equal(&config, &before, sizeof config);
}

void assert_argument_refused(const char *argument, const char *part) {
    static mdm_config config, before;
    mdm_config_defaults(&config);
    before = config;
    if (mdm_config_set(&config, argument) != MDM_USAGE) fail_msg("accepted: %s", argument);
    assert_message_has(part);
    assert_memory_equal(&config, &before, sizeof config);
}

void assert_same(const mdm_config *a, const mdm_config *b) {
    char left[MDM_CONFIG_TEXT], right[MDM_CONFIG_TEXT];
    for (int i = 0; i < mdm_config_key_count(); i++) {
        const char *name = mdm_config_key_at(i)->name;
        mdm_config_get(a, name, left, sizeof left);
        mdm_config_get(b, name, right, sizeof right);
        if (strcmp(left, right) != 0) fail_msg("%s is %s, then %s", name, left, right);
    }
    assert_memory_equal(a, b, sizeof *a);
}

void assert_round_trip(const mdm_config *config) {
    static mdm_config again;
    mdm_text text = {0};
    mdm_config_write(config, &text);
    assert_false(text.failed);
    mdm_config_defaults(&again);
    if (mdm_config_read_text(&again, text.data, text.length, "x.yaml") != MDM_OK)
        fail_msg("%s", mdm_last_message());
    assert_same(config, &again);
    free(text.data);
}
