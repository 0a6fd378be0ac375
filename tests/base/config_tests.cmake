# The configuration; `ninja config_template` writes configs/template.yaml anew from the table of keys.
mdm_test(config SOURCES test_config.c config_test.c ROOMS base)
mdm_test(config_files SOURCES test_config_files.c config_test.c ROOMS base)
target_compile_definitions(test_config PRIVATE MDM_CONFIGS_FOLDER="${CMAKE_SOURCE_DIR}/configs")
add_custom_target(config_template
    COMMAND test_config --write-template ${CMAKE_SOURCE_DIR}/configs/template.yaml VERBATIM)
