mdm_test(losses SOURCES test_losses.c ROOMS model)
