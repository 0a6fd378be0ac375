# What the distribution provides; launch/install-dependencies.sh installs it.
find_package(MPI REQUIRED COMPONENTS C)
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(YAML REQUIRED IMPORTED_TARGET yaml-0.1)
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
find_package(OpenSSL REQUIRED COMPONENTS Crypto) # SHA-256 of checkpoints
pkg_check_modules(ZLIB REQUIRED IMPORTED_TARGET zlib)
pkg_check_modules(JPEG REQUIRED IMPORTED_TARGET libjpeg)
add_library(mdm_jpeg INTERFACE)
target_link_libraries(mdm_jpeg INTERFACE PkgConfig::JPEG)
pkg_check_modules(PNG REQUIRED IMPORTED_TARGET libpng)
add_library(mdm_png INTERFACE)
target_link_libraries(mdm_png INTERFACE PkgConfig::PNG)
set(HDF5_PREFER_PARALLEL TRUE)
find_package(HDF5 REQUIRED COMPONENTS C)
if(NOT HDF5_IS_PARALLEL)
    message(FATAL_ERROR "HDF5 without MPI was found; install libhdf5-openmpi-dev")
endif()
add_library(mdm_hdf5 INTERFACE)
target_include_directories(mdm_hdf5 SYSTEM INTERFACE ${HDF5_C_INCLUDE_DIRS})
target_link_libraries(mdm_hdf5 INTERFACE ${HDF5_C_LIBRARIES} MPI::MPI_C)
target_compile_definitions(mdm_hdf5 INTERFACE H5_USE_110_API) # newer ones have it, too
find_library(DNNL_LIBRARY NAMES dnnl REQUIRED)
find_path(DNNL_INCLUDE_DIR NAMES dnnl.h REQUIRED)
add_library(mdm_onednn INTERFACE)
target_include_directories(mdm_onednn SYSTEM INTERFACE ${DNNL_INCLUDE_DIR})
target_link_libraries(mdm_onednn INTERFACE ${DNNL_LIBRARY})
# The OpenMP build of OpenBLAS shares the thread pool of oneDNN and of our kernels; the pthread build would fight it.
find_path(CBLAS_INCLUDE_DIR NAMES cblas.h REQUIRED
          PATH_SUFFIXES openblas-openmp x86_64-linux-gnu/openblas-openmp aarch64-linux-gnu/openblas-openmp openblas
                        x86_64-linux-gnu aarch64-linux-gnu)
find_library(OPENBLAS_LIBRARY NAMES openblas REQUIRED
             HINTS /usr/lib/${CMAKE_LIBRARY_ARCHITECTURE}/openblas-openmp /usr/lib64/openblas-openmp)
add_library(mdm_openblas INTERFACE)
target_include_directories(mdm_openblas SYSTEM INTERFACE ${CBLAS_INCLUDE_DIR})
target_link_libraries(mdm_openblas INTERFACE ${OPENBLAS_LIBRARY})
get_filename_component(OPENBLAS_FOLDER ${OPENBLAS_LIBRARY} DIRECTORY)
if(OPENBLAS_FOLDER MATCHES "openblas") # not on the linker's default path: remember it in the executable
    target_link_options(mdm_openblas INTERFACE "-Wl,-rpath,${OPENBLAS_FOLDER}")
endif()
