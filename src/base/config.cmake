# The configuration: its sources, and configs/quickstart.yaml compiled in as the run of a program started without arguments.
set(MDM_CONFIG_SOURCES config.c config_table.c config_yaml.c config_write.c config_check.c
                       ${CMAKE_CURRENT_BINARY_DIR}/config_quickstart.c)
set(MDM_CONFIG_LIBRARIES PkgConfig::YAML PkgConfig::XXHASH)

set(quickstart ${CMAKE_SOURCE_DIR}/configs/quickstart.yaml)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${quickstart})
file(READ ${quickstart} bytes HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
string(REGEX REPLACE "(0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,)" "\\1\n    " bytes "${bytes}")
file(CONFIGURE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/config_quickstart.c CONTENT
"/* Made by src/base/config.cmake from configs/quickstart.yaml. */
#include \"config_internal.h\"
const char mdm_config_quickstart_yaml[] = {
    @bytes@0};
const size_t mdm_config_quickstart_length = sizeof mdm_config_quickstart_yaml - 1;
" @ONLY)
