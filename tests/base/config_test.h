/* What the tests of the configuration ask of it. */
#ifndef MDM_TESTS_CONFIG_TEST_H
#define MDM_TESTS_CONFIG_TEST_H

#include "golden.h"
#include "mdm/base/config.h"

mdm_status read_text(mdm_config *config, const char *yaml);
/* The last message has this part, and is one line. */
void assert_message_has(const char *part);
/* Reading `yaml`, or taking an argument, is MDM_USAGE, says `part`, and leaves the configuration alone. */
void assert_refused(const char *yaml, const char *part);
void assert_argument_refused(const char *argument, const char *part);
void assert_same(const mdm_config *a, const mdm_config *b);
/* What is written of it reads as the same. */
void assert_round_trip(const mdm_config *config);

#endif
