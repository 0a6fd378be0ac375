/* Data set files of strangers are looked through in a process of their own before the program opens them. */
#ifndef MDM_DATA_SCREEN_H
#define MDM_DATA_SCREEN_H

#include "mdm/base/text.h"

/* Runs `examine` on the file in a child process that may neither write, nor fill the memory, nor run for
 * ever; its failure, its crash and its limits become MDM_INPUT here, and what it put into `found` comes back:
 * a crash that depends on what lies in memory may spare the child and meet whoever does the same afterwards,
 * so nobody should. The caller frees found->data. Before that, the child refuses what no
 * data set file needs and what could lead out of it or beyond it: links that are not hard, virtual data sets,
 * external storage, filters other than deflate, shuffle and fletcher32, sizes that the file cannot hold. */
MDM_MUST_CHECK mdm_status mdm_screen_file(const char *path,
                                          mdm_status (*examine)(const char *path, mdm_text *found),
                                          mdm_text *found);

#endif
