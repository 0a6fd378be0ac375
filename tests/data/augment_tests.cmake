mdm_test(augment SOURCES test_augment.c ../golden.c ROOMS data LIBRARIES mdm_hdf5)
