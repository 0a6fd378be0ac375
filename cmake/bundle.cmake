# The target bundle: a relocatable archive of the program, its libraries and the checks of a GPU (cmake/bundle/).
get_property(checks GLOBAL PROPERTY MDM_GPU_CHECKS)
file(GENERATE OUTPUT ${CMAKE_BINARY_DIR}/gpu-checks CONTENT "${checks}")
add_custom_target(bundle COMMAND ${CMAKE_SOURCE_DIR}/cmake/bundle/make.sh ${CMAKE_BINARY_DIR} ${PROJECT_VERSION}
                  WORKING_DIRECTORY ${CMAKE_BINARY_DIR} USES_TERMINAL
                  COMMENT "Packing mdm-dist with Open MPI, HDF5 and what they need")
add_dependencies(bundle mdm-dist)
foreach(room device data model train)
    get_property(programs DIRECTORY ${CMAKE_SOURCE_DIR}/tests/${room} PROPERTY BUILDSYSTEM_TARGETS)
    add_dependencies(bundle ${programs})
endforeach()
