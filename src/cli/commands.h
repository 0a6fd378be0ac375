/* The commands. argv[0] is the command's name. They return the exit code as a status and leave the message
 * for main. */
#ifndef MDM_CLI_COMMANDS_H
#define MDM_CLI_COMMANDS_H

#include "mdm/base/config.h"
#include "mdm/base/status.h"

MDM_MUST_CHECK mdm_status mdm_command_train(int argc, char **argv);
MDM_MUST_CHECK mdm_status mdm_command_data(int argc, char **argv);
MDM_MUST_CHECK mdm_status mdm_command_eval(int argc, char **argv);
MDM_MUST_CHECK mdm_status mdm_command_predict(int argc, char **argv);
MDM_MUST_CHECK mdm_status mdm_command_export(int argc, char **argv);
MDM_MUST_CHECK mdm_status mdm_command_bench(int argc, char **argv);
MDM_MUST_CHECK mdm_status mdm_command_doctor(int argc, char **argv);
MDM_MUST_CHECK mdm_status mdm_command_status(int argc, char **argv);
MDM_MUST_CHECK mdm_status mdm_command_slurm(int argc, char **argv);
MDM_MUST_CHECK mdm_status mdm_command_completion(int argc, char **argv);
MDM_MUST_CHECK mdm_status mdm_command_report(int argc, char **argv);
MDM_MUST_CHECK mdm_status mdm_command_man(int argc, char **argv);

/* The settings of a command line, checked: from `file` (NULL: the built-in quickstart) and every word of argv
 * with a = that is no option. */
MDM_MUST_CHECK mdm_status mdm_command_read_config(int argc, char **argv, const char *file,
                                                  mdm_config *config);

typedef struct mdm_comm mdm_comm;
/* To be called by every rank at the end of a command, before mdm_comm_finish: a failure that only this rank
 * has seen ends all ranks at once, with its message; a common one is told by rank 0 alone, here. */
void mdm_command_leave(mdm_comm *comm, mdm_status status);
/* Whether the message of the failure has been printed, by this rank or another: one line is enough. */
int mdm_command_was_told(void);

#endif
