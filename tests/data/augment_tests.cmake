mdm_test(augment SOURCES test_augment.c ROOMS data LIBRARIES mdm_hdf5)
