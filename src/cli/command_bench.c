/* mdm-dist bench: to be filled with measurements. */
#include "commands.h"

mdm_status mdm_command_bench(int argc, char **argv) {
    (void)argc;
    (void)argv;
    return MDM_OK;
}
