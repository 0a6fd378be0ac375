mdm_test(augment SOURCES test_augment.c pillow.c ROOMS data LIBRARIES mdm_hdf5)
mdm_test(device_views SOURCES test_device_views.c pillow.c ROOMS data device base LIBRARIES mdm_hdf5)
mdm_test_on_gpus(device_views SOURCES test_device_views.c pillow.c ROOMS data device base LIBRARIES mdm_hdf5)
if(TARGET mdm_races_gpu)
    mdm_test_races(device_views SOURCES test_device_views.c pillow.c ROOMS data device base LIBRARIES mdm_hdf5
                   ONLY steps_follow_each_other_without_a_wait_for_the_first)
endif()
