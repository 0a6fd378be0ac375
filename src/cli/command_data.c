#include "commands.h"
mdm_status mdm_command_data(int argc, char **argv) {
    (void)argc;
    (void)argv;
    return MDM_OK;
}
