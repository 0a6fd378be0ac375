# The augmentation's part of the data room, for src/data/CMakeLists.txt.
set(MDM_AUGMENT_SOURCES augment.c augment_geometry.c augment_color.c augment_policy.c)
