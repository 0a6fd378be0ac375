# cmake --install, and packages of it (target package: a .deb). Manual pages and completions come from the program itself.
include(GNUInstallDirs)
set(generated ${CMAKE_BINARY_DIR}/generated)
add_custom_command(OUTPUT ${generated}/done
    COMMAND ${CMAKE_SOURCE_DIR}/cmake/manual_pages.sh $<TARGET_FILE:mdm-dist> ${generated}
    COMMAND ${CMAKE_COMMAND} -E touch ${generated}/done
    DEPENDS mdm-dist ${CMAKE_SOURCE_DIR}/cmake/manual_pages.sh VERBATIM)
add_custom_target(man ALL DEPENDS ${generated}/done) # build/generated/man/*.1, build/generated/completions/*

install(TARGETS mdm-dist RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY ${generated}/man/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${generated}/completions/mdm-dist.bash RENAME mdm-dist
        DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES ${generated}/completions/mdm-dist.zsh RENAME _mdm-dist
        DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions)
install(FILES ${generated}/completions/mdm-dist.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
install(DIRECTORY configs DESTINATION ${CMAKE_INSTALL_DATADIR}/mdm-dist)
install(PROGRAMS launch/hosts.sh launch/local.sh DESTINATION ${CMAKE_INSTALL_DATADIR}/mdm-dist/launch)
install(FILES launch/slurm.sbatch DESTINATION ${CMAKE_INSTALL_DATADIR}/mdm-dist/launch)
install(FILES README.md CHANGELOG.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES LICENSE RENAME copyright DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR})
configure_file(cmake/packaging/modulefile.in ${CMAKE_BINARY_DIR}/modulefile @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/modulefile RENAME ${PROJECT_VERSION}
        DESTINATION ${CMAKE_INSTALL_DATADIR}/mdm-dist/modulefiles/mdm-dist)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME mdm-dist)
set(CPACK_PACKAGE_VENDOR "mdm-dist")
set(CPACK_PACKAGE_CONTACT "mdm-dist <mdm-dist@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "learns from badly labelled pictures and cleans their labels")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_DEPENDS "openmpi-bin, libopenblas0-openmp")
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "openssh-client")
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "dataset-fashion-mnist, python3-h5py")
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION
    "Manifold DivideMix over MPI: trains two networks on a data set in which many labels are wrong and some pictures\nbelong to no class, and tells which ones they are: a cleaned label file, a report and the networks' weights.")
include(CPack)
